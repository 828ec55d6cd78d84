"""Backbones: networks of torchvision and timm up to their last map, and any module of the user's own.

Derived in notebooks/03_model.
"""

from __future__ import annotations

import difflib
import importlib
from collections import OrderedDict
from typing import NamedTuple

import torch
import torchvision
from torch import Tensor, nn

from alignedreid_lib.errors import InputError
from alignedreid_lib.model.halving import undo_last_halving
from alignedreid_lib.model.modes import evaluating

# Children of torchvision's classification networks that come after the last map, or on a side branch.
AFTER_THE_MAP = ("avgpool", "fc", "classifier", "head", "heads", "flatten", "dropout")
SETTINGS = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
TIMM = "timm:"
# Pixels of the blank images that show what a backbone gives: a person's shape, and the square that some networks need.
PROBES = ((256, 128), (224, 224))


class Output(NamedTuple):
    """What a backbone gives of images."""

    channels: int  # C
    is_map: bool  # a map [N, C, H, W]; else one vector per image, [N, C]
    size: tuple[int, int]  # the first of `PROBES` that it takes


class DepthwiseConv2d(nn.Conv2d):
    """A depthwise convolution that stays in float32 on CPUs, also under autocast.

    Its speed is bound by memory, not by arithmetic, and its bfloat16 gradient is several times slower on CPUs.
    """

    @classmethod
    def of(cls, conv: nn.Conv2d) -> DepthwiseConv2d:
        """A convolution with the parameters of `conv`."""
        # Parameters on "meta", which are replaced at once, cost neither memory nor random numbers.
        new = cls(**{name: getattr(conv, name) for name in SETTINGS}, device="meta")
        new.weight, new.bias = conv.weight, conv.bias
        return new

    def forward(self, input: Tensor) -> Tensor:
        if input.device.type != "cpu":
            return super().forward(input)
        with torch.autocast("cpu", enabled=False):
            return super().forward(input.to(self.weight.dtype))


def build_backbone(name: str, last_stride: int = 2) -> nn.Module:
    """A classification network up to its last map, with random weights.

    Args:
        name: torchvision's name of a network; "resnet18.layer3" is ResNet-18 up to layer3; "timm:resnet10t" is a
            network of the package timm, which has to be installed.
        last_stride: 2, or 1 to undo the last halving.

    Returns:
        a module from [N, 3, h, w] to [N, C, H, W], with torchvision's or timm's parameter names. A network without a
        map (a vision transformer) gives one vector per image, [N, C].

    Raises:
        InputError: unknown name or child, a last_stride that the network cannot have, or timm is not installed.
    """
    if last_stride not in (1, 2):
        raise InputError(f"last_stride is {last_stride}; it is 2 (as published) or 1 (a map of twice the size)")
    base = _from_timm(name) if name.startswith(TIMM) else _from_torchvision(name)
    if last_stride == 1:
        undo_last_halving(base, name)
    for place, module in list(base.named_modules()):
        if type(module) is nn.Conv2d and module.groups == module.in_channels > 1:
            base.set_submodule(place, DepthwiseConv2d.of(module))
    return base


def _from_torchvision(name: str) -> nn.Module:
    network, dot, end = name.partition(".")
    known = torchvision.models.list_models(module=torchvision.models)
    if network not in known:
        near = [other for other in known if other[:5] == name[:5]] or ["resnet50", "resnet18", "mobilenet_v2"]
        raise InputError(f"backbone {network!r} is not a torchvision classification network; try {', '.join(near[:6])}")
    whole = torchvision.models.get_model(network)
    if isinstance(whole, torchvision.models.VisionTransformer) and not dot:  # its feature is the class token
        whole.heads = nn.Identity()
        return whole
    layers = OrderedDict(
        (child, module)
        for child, module in whole.named_children()
        if child not in AFTER_THE_MAP and not child.lower().startswith("aux")
    )
    if dot:
        if end not in layers:
            raise InputError(f"backbone {name!r}: {network} can be cut after {', '.join(layers)}")
        while next(reversed(layers)) != end:
            layers.popitem()
    elif name.startswith("densenet"):  # its forward applies this without a module
        layers["relu"] = nn.ReLU(inplace=True)
    return nn.Sequential(layers)


def _from_timm(name: str) -> nn.Module:
    """timm's network without its pooling and classifier; with its pooling, if its last layer is not a map."""
    network = name.removeprefix(TIMM)
    try:
        timm = importlib.import_module("timm")
    except ImportError as error:
        raise InputError(f"backbone {name} needs the package timm ({error}); install it: pip install timm") from None
    if network not in timm.list_models():
        near = difflib.get_close_matches(network, timm.list_models(), 6, 0.3) or ["resnet10t", "mobilenetv3_small_100"]
        raise InputError(f"backbone {name}: timm {timm.__version__} has no such network; try {', '.join(near)}")
    # Never pretrained=True, which would download: weights come from a file.
    base = timm.create_model(network, pretrained=False, num_classes=0, global_pool="")
    try:
        is_map = probe(base, name).is_map
    except InputError:  # tokens, or a map whose channels come last
        is_map = False
    return base if is_map else timm.create_model(network, pretrained=False, num_classes=0)


def has_map(name: str) -> bool:
    """True if a backbone by name gives a map, and so local features; found without memory for its parameters.

    Raises:
        InputError: see `build_backbone` and `probe`.
    """
    with torch.device("meta"):
        return probe(build_backbone(name), name).is_map


def probe(base: nn.Module, name: str) -> Output:
    """What a backbone gives, found with a blank image; the modes of its modules stay as they are.

    Raises:
        InputError: neither a map [N, C, H, W] nor one vector per image, or the module fails.
    """
    weight = next(base.parameters(), torch.zeros(()))
    failure: Exception | None = None
    for height, width in PROBES:
        blank = torch.zeros(1, 3, height, width, device=weight.device, dtype=weight.dtype)
        try:
            with evaluating(base), torch.no_grad():
                given = base(blank)
        except Exception as error:  # a module of the user's own can fail in any way
            failure = failure or error
            continue
        shape = tuple(given.shape) if isinstance(given, Tensor) else ()
        if len(shape) == 2:
            return Output(shape[1], False, (height, width))
        if len(shape) == 4 and shape[2] >= shape[3]:  # else the channels come last
            return Output(shape[1], True, (height, width))
        shown = f"a tensor of shape {shape}" if shape else type(given).__name__
        raise InputError(
            f"backbone {name} gives {shown} and does not end in a map [N, C, H, W] or in one vector per image "
            "[N, C]; cut or wrap it so that it does, or choose a different one, such as resnet50"
        )
    reason = (str(failure).strip().splitlines() or [type(failure).__name__])[0]
    raise InputError(
        f"backbone {name} fails on images [1, 3, 256, 128] and [1, 3, 224, 224] ({reason}); give a module that takes "
        "one of them, or choose one such as resnet50"
    ) from None
