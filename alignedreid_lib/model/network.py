"""The network: a classification backbone whose last map feeds a global, a local and an identity branch.

Shapes: N batch, C global channels, H stripes, c local channels. Derived in notebooks/03_model.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import torch
import torchvision
from torch import Tensor, nn

from alignedreid_lib.errors import InputError
from alignedreid_lib.model.halving import undo_last_halving
from alignedreid_lib.model.pooling import GeneralisedMean
from alignedreid_lib.model.weights import load_imagenet, load_weights

log = logging.getLogger(__name__)

# Children of torchvision's classification networks that come after the last map, or on a side branch.
AFTER_THE_MAP = ("avgpool", "fc", "classifier", "head", "heads", "flatten", "dropout")
SETTINGS = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
SMALLEST = 128  # pixels of a side that every backbone accepts
MOST_CHANNELS = 1 << 16  # of a local feature; the widest map of torchvision has 7 392
Pooling = Literal["mean", "gem"]
Neck = Literal["none", "batchnorm"]


class Embedding(NamedTuple):
    """The features of N images."""

    global_features: Tensor  # [N, C]; of a network with a neck: before it in training mode, else after it
    local_features: Tensor  # [N, H, c]
    logits: Tensor | None  # [N, ids]; None without an identity head


class AlignedReID(nn.Module):
    """AlignedReID's network.

    The global feature is the mean of the last map. A local feature is one row of it: the mean over the width, then a
    1x1 convolution, batch norm and ReLU, as in the original reproduction. Parameters have the original's names
    (`base.*`, `local_conv.*`, `local_bn.*`, `fc.*`).

    With a neck, a batch norm without a shift is between two features: triplets take the one before it, the classifier
    (then without a bias) and the search the one after it. So a network in training mode gives the first, in evaluation
    mode the second.

    Args:
        backbone: see `build_backbone`.
        weights: None (random), "imagenet" (torchvision's V1, downloaded once into torch's cache), or a file.
        num_ids: identities of the classifier; None for no classifier.
        local_channels: c.
        last_stride: 2 as published, or 1 for a map of twice the height and width, see `halving.undo_last_halving`.
        pooling: "mean" as published, or "gem", see `pooling.GeneralisedMean`.
        neck: "none" as published, or "batchnorm" (BNNeck).
        num_centres: identities with a centre in the buffer `centres` [num_centres, C], see `centres.move_centres`;
            None for no such buffer.

    Raises:
        InputError: an unknown backbone or one without a spatial map, an invalid setting, or unfitting weights.

    Source: Zhang et al. 2017, section 3.1; the original reproduction; Luo et al., CVPR-W 2019, for the neck.
    """

    centres: Tensor | None

    def __init__(
        self,
        backbone: str = "resnet50",
        weights: str | Path | None = None,
        num_ids: int | None = None,
        local_channels: int = 128,
        last_stride: int = 2,
        pooling: Pooling = "mean",
        neck: Neck = "none",
        num_centres: int | None = None,
    ) -> None:
        super().__init__()
        if not 1 <= local_channels <= MOST_CHANNELS:
            raise InputError(f"local_channels is {local_channels}; it has to be from 1 to {MOST_CHANNELS}")
        for name, value, known in (("pooling", pooling, Pooling), ("neck", neck, Neck)):
            if value not in get_args(known):
                raise InputError(f"{name} is {value!r}; it has to be one of {', '.join(get_args(known))}")
        self.base = build_backbone(backbone, last_stride)
        channels = _count_channels(self.base, backbone)
        self.local_conv = nn.Conv2d(channels, local_channels, 1)
        self.local_bn = nn.BatchNorm2d(local_channels)
        self.local_relu = nn.ReLU(inplace=True)
        self.pool = GeneralisedMean() if pooling == "gem" else None
        self.neck = nn.BatchNorm2d(channels) if neck == "batchnorm" else None
        if self.neck is not None:
            self.neck.bias.requires_grad_(False)
        self.fc = None if num_ids is None else nn.Linear(channels, num_ids, bias=self.neck is None)
        if self.fc is not None:
            nn.init.normal_(self.fc.weight, std=0.001)
            if self.fc.bias is not None:
                nn.init.zeros_(self.fc.bias)
        self.register_buffer("centres", None if num_centres is None else torch.zeros(num_centres, channels))
        if weights is not None:
            report = load_imagenet(self, backbone) if weights == "imagenet" else load_weights(self, weights)
            log.info("%s: %s", weights, report)

    def forward(self, images: Tensor) -> Embedding:
        """Embed images.

        Args:
            images: float [N, 3, h, w], normalised (`images.normalize`).
        """
        feature_map = self.base(images) if torch.compiler.is_compiling() else self._last_map(images)  # [N, C, H, W]
        exact = torch.promote_types(feature_map.dtype, torch.float32)  # a mean has more bits than a bfloat16 map
        mean = feature_map.mean(dim=(2, 3), dtype=exact)  # [N, C]
        global_features = mean if self.pool is None else self.pool(feature_map)  # [N, C]
        stripes = feature_map.mean(dim=3, keepdim=True, dtype=exact)  # [N, C, H, 1]
        stripes = self.local_relu(self.local_bn(self.local_conv(stripes)))  # [N, c, H, 1]
        local_features = stripes.squeeze(3).transpose(1, 2)  # [N, H, c]
        searched = global_features
        if self.neck is not None:
            searched = self.neck(global_features[:, :, None, None]).flatten(1)  # [N, C]
        logits = None if self.fc is None else self.fc(searched)
        return Embedding(global_features if self.training else searched, local_features, logits)

    def _last_map(self, images: Tensor) -> Tensor:
        """The backbone's map [N, C, H, W]; an InputError if the images are too small to give one."""
        height, width = images.shape[2:]
        try:
            feature_map = self.base(images)
        except (RuntimeError, ValueError) as error:  # a pooling has nothing left to pool
            if min(height, width) >= SMALLEST or isinstance(error, torch.OutOfMemoryError):
                raise
            feature_map = images[:0, :, :0]
        if 0 in feature_map.shape[2:]:
            raise InputError(f"nothing is left of images of {height} x {width} in this backbone; give larger ones")
        return feature_map


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


def build_backbone(name: str, last_stride: int = 2) -> nn.Sequential:
    """A torchvision classification network up to its last map, with random weights.

    Args:
        name: torchvision's name of a network that keeps a spatial map; "resnet18.layer3" is ResNet-18 up to layer3.
        last_stride: 2, or 1 to undo the last halving.

    Returns:
        a module from [N, 3, h, w] to [N, C, H, W], with torchvision's parameter names.

    Raises:
        InputError: unknown name or child, or a last_stride that the network cannot have.
    """
    network, dot, end = name.partition(".")
    known = torchvision.models.list_models(module=torchvision.models)
    if network not in known:
        near = [other for other in known if other[:5] == name[:5]] or ["resnet50", "resnet18", "mobilenet_v2"]
        raise InputError(f"backbone {network!r} is not a torchvision classification network; try {', '.join(near[:6])}")
    whole = torchvision.models.get_model(network)
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
    if last_stride not in (1, 2):
        raise InputError(f"last_stride is {last_stride}; it is 2 (as published) or 1 (a map of twice the size)")
    base = nn.Sequential(layers)
    if last_stride == 1:
        undo_last_halving(base, name)
    for place, module in list(base.named_modules()):
        if type(module) is nn.Conv2d and module.groups == module.in_channels > 1:
            base.set_submodule(place, DepthwiseConv2d.of(module))
    return base


def _count_channels(base: nn.Module, name: str) -> int:
    """C of the backbone's last map [N, C, H, W], taken from the map of one blank image.

    Raises:
        InputError: the backbone does not end in a map.
    """
    base.eval()
    try:
        with torch.no_grad():
            shape = tuple(base(torch.zeros(1, 3, 256, 128)).shape)
    except (RuntimeError, AssertionError):  # transformers need tokens where the map was cut
        shape = ()
    base.train()
    if len(shape) != 4 or shape[2] < shape[3]:
        raise InputError(f"backbone {name} does not end in a map [N, C, H, W]; choose one that does, such as resnet50")
    return shape[1]
