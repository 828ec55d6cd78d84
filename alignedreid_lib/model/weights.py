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

CLASSIFIER = ("fc.weight", "fc.bias", "centres")  # of each person trained with
HOLDERS = ("model", "state_dict", "state_dicts", "model_state_dict", "net", "network", "params")  # keys of checkpoints


class LoadReport(NamedTuple):
    """The model's parameters that a weights file lacks, and the file's that the model lacks."""

    missing: list[str]
    unexpected: list[str]

    def __str__(self) -> str:
        def shown(names: list[str], what: str) -> str:
            first = ", ".join(names[:6] + ["..."] * (len(names) > 6))
            return f"{len(names)} {what}: {first}" if names else f"0 {what}"

        return f"{shown(self.missing, 'missing')}; {shown(self.unexpected, 'left over')}"


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a file in PyTorch's present or old format, by name; nothing in it is executed.

    Accepts a plain state dict and checkpoints with one: under a key of `HOLDERS`, or as the first of a list under such
    a key (the original reproduction's `state_dicts`). The prefixes of DataParallel (`module.`) and of compiled
    models (`_orig_mod.`) are removed. torchvision's DenseNet files use older names, which are translated.

    Raises:
        InputError: absent, not a weights file, or one that contains more than tensors.
    """
    if not isinstance(path, str | os.PathLike):
        raise InputError(f'weights is {path!r}; it has to be a file, "imagenet" or None')
    path = os.path.expanduser(path)
    try:
        content = tensorfiles.load(path)
    except FileNotFoundError:
        raise InputError(f'{path}: no such weights file; give a different file, "imagenet" or None (random)') from None
    except tensorfiles.UnreadableError as error:
        in_folder = os.path.isfile(os.path.join(path, "weights.pth"))
        advice = "give weights.pth in it" if in_folder else error.advice
        raise InputError(f"{path}: not a file of weights alone ({error.what}); {advice}") from None
    if isinstance(content, dict):
        held = (content[key] for key in HOLDERS if key in content and not isinstance(content[key], Tensor))
        content = next(held, content)
    if isinstance(content, list | tuple) and content:
        content = content[0]
    if not isinstance(content, dict) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        ours = isinstance(content, dict) and {"format", "models"} <= content.keys()
        advice = "give weights.pth of the same run" if ours else "save model.state_dict() with torch.save"
        raise InputError(f"{path}: contains no state dict (names to tensors); {advice}")
    names = [re.sub(r"^(module\.|_orig_mod\.)+", "", str(name)) for name in content]
    names = [re.sub(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)", r"\1\2", name) for name in names]
    return dict(zip(names, content.values(), strict=True))


def load_weights(model: nn.Module, path: str | Path) -> LoadReport:
    """Fill a model from a file: ours, the original reproduction's, or a backbone in torchvision's names.

    A classifier for a different number of people is left out. One for the same number is loaded even if its people
    are different, because a file does not name them.

    Args:
        model: an `AlignedReID`; it is changed only if the file fits.
        path: see `read_weights`.

    Returns:
        what was missing (keeps its values) and what was left over, by name; a classifier that was left out is in both.
        Batch counters, which older PyTorch did not write, do not count as missing.

    Raises:
        InputError: not a weights file, a backbone parameter is missing, or a tensor has a wrong shape or type.
    """
    given = read_weights(path)
    own = model.state_dict()
    if not any(name.startswith("base.") for name in given):
        # Prefixes of other toolboxes: backbone. (fast-reid), model. (layumi's), encoder_q. (MoCo)
        first = next((name.removeprefix("base.") for name in own if name.startswith("base.")), "")
        before = [name.removesuffix(first) for name in given if name.endswith(f".{first}")]
        prefix = before[0] if first and first not in given and len(before) == 1 else ""
        given = {re.sub(f"^{re.escape(prefix)}", "base.", name): tensor for name, tensor in given.items()}
    taken = {name: tensor for name, tensor in given.items() if name in own}
    shapes = [(taken[name].shape, own[name].shape) for name in CLASSIFIER if name in taken]
    if any(theirs[:1] != ours[:1] and theirs[1:] == ours[1:] for theirs, ours in shapes):
        taken = {name: tensor for name, tensor in taken.items() if name not in CLASSIFIER}
    missing = [name for name in own if name not in taken and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in given if name not in taken]
    if without := [name for name in missing if name.startswith("base.")]:
        raise InputError(
            f"{path}: the weights of a different network: {len(without)} backbone parameters are not in it, "
            f"{without[0]} among them; choose the backbone it was made with"
        )
    for name, tensor in taken.items():
        if tensor.shape != own[name].shape:
            differs = f"{name} has shape {tuple(tensor.shape)}, this model's has {tuple(own[name].shape)}"
            raise InputError(f"{path}: {differs}; {_what_to_change(name, tensor.shape, own[name].shape)}")
        if tensor.is_floating_point() != own[name].is_floating_point() or tensor.layout != torch.strided:
            raise InputError(f"{path}: {name} is of type {tensor.dtype}; give weights that are not quantized")
        if tensor.is_meta or not bool(torch.isfinite(tensor).all()):
            raise InputError(
                f"{path}: {name} contains numbers that are not finite, or none; give an earlier epoch's weights"
            )
    model.load_state_dict(taken, strict=False)
    return LoadReport(missing, unexpected)


def _what_to_change(name: str, theirs: torch.Size, ours: torch.Size) -> str:
    """What to change in a model so that a file's tensor of a different shape fits."""
    changes, backbone = [], "choose the backbone it was made with"
    if name.startswith("local_") and len(theirs) == len(ours):
        if theirs[:1] != ours[:1]:
            changes.append(f"set local_channels to {theirs[0]}, with which it was made")
        if theirs[1:2] != ours[1:2]:
            changes.append(f"{backbone}, a different network or cut: its map has {theirs[1]} channels, not {ours[1]}")
    return ", and ".join(changes) or backbone


def load_imagenet(model: nn.Module, backbone: str) -> LoadReport:
    """Fill a model's backbone with torchvision's ImageNet weights (V1), from torch's cache or by a download.

    Torchvision itself would unpickle the file without protection; here it is read like any other.

    Raises:
        InputError: torchvision has no such weights, they cannot be downloaded, or the cached file is damaged.
    """
    choices = {choice.name: choice for choice in torchvision.models.get_model_weights(backbone.split(".")[0])}
    if "IMAGENET1K_V1" not in choices:
        raise InputError(f"torchvision has no IMAGENET1K_V1 weights of {backbone}; give a file, or None (random)")
    url = choices["IMAGENET1K_V1"].url
    path = Path(torch.hub.get_dir(), "checkpoints", os.path.basename(urllib.parse.urlparse(url).path))
    digits = re.search(r"-([0-9a-f]{8,})\.", path.name)  # of its SHA-256
    if not os.path.lexists(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), digits and digits[1])  # gets its name when it is whole
        except Exception as error:  # a network can fail in any way
            reason = str(error).strip("<>") or type(error).__name__
            raise InputError(
                f"{path}: not there, and cannot be downloaded ({reason}); download {url} on a different machine, put "
                "it there, set TORCH_HOME to a folder that you can write, or give its path as weights"
            ) from None
    try:
        return load_weights(model, path)
    except InputError as error:
        raise InputError(
            f"{error}; delete this file, then it is downloaded, or put a whole copy of {url} there"
        ) from None
