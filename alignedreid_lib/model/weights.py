"""Weights from files: ours, the original reproduction's, torchvision's. Derived in notebooks/03_model."""

from __future__ import annotations

import os
import re
import urllib.parse
from pathlib import Path
from typing import NamedTuple

import torch
import torchvision
from torch import Tensor, nn

from alignedreid_lib.errors import InputError
from alignedreid_lib.runs import tensorfiles

CLASSIFIER = ("fc.weight", "fc.bias")


class LoadReport(NamedTuple):
    """Which parameters a weights file did not give, and which it gave in vain."""

    missing: list[str]
    unexpected: list[str]

    def __str__(self) -> str:
        parts = [
            f"{len(names)} {what}{': ' + ', '.join(names[:6]) if names else ''}{', ...' if len(names) > 6 else ''}"
            for what, names in (("missing", self.missing), ("left over", self.unexpected))
        ]
        return "; ".join(parts)


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """A file of tensors, in PyTorch's present or old format; nothing in it is executed.

    Accepts a plain state dict, and checkpoints that hold one under `model`, `state_dict` or, as the original
    reproduction's, first of `state_dicts`. Prefixes of DataParallel (`module.`) and of compiled models (`_orig_mod.`)
    are taken off, and torchvision's DenseNets, whose files are older than their names, get the present names.

    Raises:
        InputError: absent, not a weights file, or one that asks for more than tensors.
    """
    if not isinstance(path, str | os.PathLike):
        raise InputError(f'weights is {path!r}; it has to be a file, "imagenet" or None')
    path = os.path.expanduser(path)
    try:
        content = tensorfiles.load(path)
    except FileNotFoundError:
        raise InputError(
            f'{path}: no such weights file; give a file that is there, "imagenet", or None for random weights'
        ) from None
    except tensorfiles.UnreadableError as error:
        advice = error.advice
        if os.path.isfile(os.path.join(path, "weights.pth")):
            advice = "give weights.pth in it"
        raise InputError(f"{path}: not a file of weights alone ({error.what}); {advice}") from None
    if isinstance(content, dict):
        for key in ("model", "state_dict", "state_dicts", "model_state_dict", "net", "network", "params"):
            if key in content and not isinstance(content[key], Tensor):
                content = content[key]
                break
    if isinstance(content, list | tuple) and content:
        content = content[0]
    if not isinstance(content, dict) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        ours = isinstance(content, dict) and {"format", "models"} <= content.keys()
        advice = "give weights.pth of the same run" if ours else "save model.state_dict() with torch.save"
        raise InputError(f"{path}: holds no state dict (names to tensors); {advice}")
    found = {}
    for name, tensor in content.items():
        name = re.sub(r"^(module\.|_orig_mod\.)+", "", str(name))
        found[re.sub(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)", r"\1\2", name)] = tensor
    return found


def load_weights(model: nn.Module, path: str | Path) -> LoadReport:
    """Fill a model from a file: ours, the original reproduction's, or a backbone in torchvision's names.

    A classifier of a different number of people is left out: it is of other people. One of as many people is loaded,
    whoever they are, since a file does not name them.

    Args:
        model: an `AlignedReID`; is changed only if the file fits.
        path: see `read_weights`.

    Returns:
        what was missing (keeps its values) and what was left over, by name; a classifier that was left out is in both.
        Counters of batches that older PyTorch did not write are not counted as missing.

    Raises:
        InputError: not a weights file; no or only some of the backbone's parameters are in it (another network's);
            or a tensor of another shape or kind.
    """
    given = read_weights(path)
    own = model.state_dict()
    if not any(name.startswith("base.") for name in given):
        # Other toolboxes put a name before the backbone's: backbone. (fast-reid), model. (layumi's), encoder_q. (MoCo)
        first = next((name.removeprefix("base.") for name in own if name.startswith("base.")), "")
        before = [name.removesuffix(first) for name in given if name.endswith(f".{first}")]
        prefix = before[0] if first and first not in given and len(before) == 1 else ""
        given = {
            f"base.{name.removeprefix(prefix)}" if name.startswith(prefix) else name: tensor
            for name, tensor in given.items()
        }
    taken = {name: tensor for name, tensor in given.items() if name in own}
    shapes = [(taken[name].shape, own[name].shape) for name in CLASSIFIER if name in taken]
    if any(theirs[:1] != ours[:1] and theirs[1:] == ours[1:] for theirs, ours in shapes):
        taken = {name: tensor for name, tensor in taken.items() if name not in CLASSIFIER}
    missing = [name for name in own if name not in taken and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in given if name not in taken]
    without = [name for name in missing if name.startswith("base.")]
    if without:
        raise InputError(
            f"{path}: the weights of another network: {len(without)} backbone parameters are not in it, "
            f"{without[0]} among them; choose the backbone it was made with"
        )
    for name, tensor in taken.items():
        if tensor.shape != own[name].shape:
            advice = "choose the backbone it was made with"
            if name.startswith("local_") and tensor.dim():
                advice = f"set local_channels to {len(tensor)}, with which it was made"
            raise InputError(
                f"{path}: {name} has shape {tuple(tensor.shape)}, this model's has {tuple(own[name].shape)}; {advice}"
            )
        if tensor.is_floating_point() != own[name].is_floating_point() or tensor.layout != torch.strided:
            raise InputError(f"{path}: {name} is of type {tensor.dtype}; give weights that are not quantized")
        if tensor.is_meta or not bool(torch.isfinite(tensor).all()):
            raise InputError(
                f"{path}: {name} holds numbers that are not finite, or none; give weights of an epoch before"
            )
    model.load_state_dict(taken, strict=False)
    return LoadReport(missing, unexpected)


def load_imagenet(model: nn.Module, backbone: str) -> LoadReport:
    """Fill a model's backbone with torchvision's ImageNet weights (V1): the file in torch's cache, else a download.

    Torchvision itself would unpickle that file unguarded; here it is read like any other.

    Raises:
        InputError: torchvision has none of this network, they cannot be downloaded, or the cached file is not whole.
    """
    choices = {choice.name: choice for choice in torchvision.models.get_model_weights(backbone.split(".")[0])}
    if "IMAGENET1K_V1" not in choices:
        raise InputError(
            f"torchvision has no IMAGENET1K_V1 weights of {backbone}; give a file, or None for random ones"
        )
    url = choices["IMAGENET1K_V1"].url
    path = Path(torch.hub.get_dir(), "checkpoints", os.path.basename(urllib.parse.urlparse(url).path))
    digits = re.search(r"-([0-9a-f]{8,})\.", path.name)  # of its SHA-256
    if not os.path.lexists(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), digits and digits[1])  # gets its name when it is whole
        except Exception as error:  # a network can fail in any way
            raise InputError(
                f"{path}: not there, and cannot be downloaded ({str(error).strip('<>') or type(error).__name__}); "
                f"download {url} on another machine and put it there, set TORCH_HOME to a folder that you can write, "
                "or give its path as weights"
            ) from None
    try:
        return load_weights(model, path)
    except InputError as error:
        raise InputError(
            f"{error}; delete this file, then it is downloaded again, or put a whole copy of {url} there"
        ) from None
