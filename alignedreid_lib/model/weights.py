"""Weights from files: ours, the original reproduction's, torchvision's. Derived in notebooks/03_model."""

from __future__ import annotations

import os
import re
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torchvision
from torch import Tensor, nn

from alignedreid_lib.errors import InputError
from alignedreid_lib.runs import tensorfiles

CLASSIFIER = ("fc.weight", "fc.bias", "centres")  # of each person trained with
# Keys of checkpoints under which the weights may be, the first that has tensors counts.
HOLDERS = (
    *("state_dict", "state_dicts", "model_state_dict", "model_state", "model", "net", "network", "module", "params"),
    *("weights", "backbone", "encoder", "teacher", "student", "state_dict_ema", "model_ema", "params_ema", "ema"),
)
# What comes before a network's names, preferred in this order where a file has the same network twice.
PREFIXES = ("", "model.", "backbone.", "encoder_q.", "encoder.", "teacher.", "net.")


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
    """The tensors of a file by name: PyTorch's present or old format, or safetensors; nothing in it is executed.

    Accepts a plain state dict and checkpoints with one: under a key of `HOLDERS` (or two, one inside the other), or as
    the first of a list under such a key (the original reproduction's `state_dicts`). The prefixes of DataParallel
    (`module.`) and of compiled models (`_orig_mod.`) are removed. torchvision's DenseNet files use older names, which
    are translated.

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
    found = _state_dict(content)
    if found is None:
        ours = isinstance(content, dict) and {"format", "models"} <= content.keys()
        advice = "give weights.pth of the same run" if ours else "save model.state_dict() with torch.save"
        raise InputError(f"{path}: contains no state dict (names to tensors); {advice}")
    names = [re.sub(r"^(module\.|_orig_mod\.)+", "", str(name)) for name in found]
    names = [re.sub(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)", r"\1\2", name) for name in names]
    return dict(zip(names, found.values(), strict=True))


def _state_dict(content: Any, depth: int = 3) -> dict[str, Tensor] | None:
    """The first dict of names to tensors in a file's content; None if there is none within `depth` containers."""
    if isinstance(content, list | tuple) and content:
        return _state_dict(content[0], depth - 1)
    if not isinstance(content, dict) or not content or depth == 0:
        return None
    if all(isinstance(value, Tensor) for value in content.values()):
        return content
    held = (_state_dict(content[key], depth - 1) for key in HOLDERS if key in content)
    return next((found for found in held if found is not None), None)


def _rename(path: str | Path, given: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A file's tensors under the model's names: what comes before the names of both is found with the first of `base`.

    Raises:
        InputError: several networks of the file fit equally well, and no prefix of `PREFIXES` tells which to take.
    """
    first = next((name for name in own if name.startswith("base.")), "")
    parts = first.split(".")
    endings = [".".join(parts[k:]) for k in range(max(2, len(parts) - 1))] if first else []  # the longest first
    # By what comes before the file's names: how many names fit, and what the model has there.
    found: dict[str, tuple[int, str]] = {}
    for name in given:
        ending = next((ending for ending in endings if name == ending or name.endswith(f".{ending}")), None)
        if ending is not None:
            theirs, ours = name.removesuffix(ending), first.removesuffix(ending)
            fits = sum(ours + other.removeprefix(theirs) in own for other in given if other.startswith(theirs))
            found[theirs] = fits, ours
    best = max((fits for fits, _ in found.values()), default=0)
    if 2 * best < len(own):  # a different network; the caller reports what is missing
        return given
    fitting = {theirs: ours for theirs, (fits, ours) in found.items() if fits == best}
    theirs = next((prefix for prefix in (*PREFIXES, *fitting) if prefix in fitting), "")
    if len(fitting) > 1 and theirs not in PREFIXES:
        raise InputError(f"{path}: several networks in it fit, {', '.join(fitting)}; give a file with one of them")
    ours = fitting.get(theirs, "")
    return {
        ours + name.removeprefix(theirs) if name.startswith(theirs) else name: tensor for name, tensor in given.items()
    }


def load_weights(model: nn.Module, path: str | Path) -> LoadReport:
    """Fill a model from a file: ours, the original reproduction's, or a backbone in the names of its maker.

    Other toolboxes put a prefix before the names (`backbone.`, `model.`, `encoder_q.`, ...), and a module of the user's
    own may wrap a network; both are found by themselves.

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
    own = model.state_dict()
    given = _rename(path, read_weights(path), own)
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
