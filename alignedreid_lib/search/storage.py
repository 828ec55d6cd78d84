"""An index as one file: arrays that are mapped into memory, and what they belong to. Explained in notebooks/12.

The file has the layout of a safetensors file, so other programs can read its features: the length of a JSON header (8
bytes), the header, and the arrays. Reading it means parsing JSON and mapping numbers; nothing in it is executed. A
SHA-256 of header and arrays is part of the header, because a changed bit in a feature would change answers silently.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter
from torch import nn

from alignedreid_lib import runs
from alignedreid_lib.batches.images import MEAN, STD
from alignedreid_lib.errors import InputError
from alignedreid_lib.evaluation.features import Features
from alignedreid_lib.search.labels import Label
from alignedreid_lib.search.threshold import Threshold

FORMAT = 1  # of index files; a change of what is in them raises it
KINDS: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "U8": np.dtype("u1")}
LONGEST_HEADER = 1 << 20  # bytes; ours has 2 kB
ALIGNMENT = 64  # bytes, of the first array
PARTS = ("global_features", "local_features")
# What decides a layer's answer besides its weights and is not visible in their shapes.
SETTINGS = ("kernel_size", "stride", "padding", "dilation", "groups", "ceil_mode", "eps")
AGAIN = "restore it, or build the index again"


@dataclass(frozen=True)
class About:
    """What the features of an index belong to; saved with them."""

    fingerprint: str  # that of the network, see `fingerprint`
    height: int  # pixels of the network's input
    width: int
    mean: tuple[float, ...]  # mean and deviation of the normalisation
    std: tuple[float, ...]
    precision: str  # the network's
    threshold: Threshold | None = None


@dataclass(frozen=True)
class Texts:
    """The words of an index; saved with the features."""

    names: list[str]
    ids: list[Label] | None
    cameras: list[Label] | None


def fingerprint(model: nn.Module) -> str:
    """A SHA-256 of all weights that features depend on and of the layers' settings; not of the classifier.

    Raises:
        InputError: not a network.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"model is {model!r}; give a network, such as AlignedReID(name, weights)")
    digest = hashlib.sha256()
    for name, module in model.named_modules():
        settings = [(key, getattr(module, key)) for key in SETTINGS if hasattr(module, key)]
        if settings and name.split(".")[0] != "fc":
            digest.update(repr((name, settings)).encode())
    for name, value in model.state_dict().items():
        if name.split(".")[0] != "fc" and not name.endswith("num_batches_tracked"):
            digest.update(repr((name, str(value.dtype), tuple(value.shape))).encode())
            digest.update(value.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def write_index(path: Path, about: About, texts: Texts, features: Features) -> None:
    """Write an index to one file; the old one stays until the new one is whole.

    Raises:
        InputError: it cannot be written.
    """
    arrays = {name: getattr(features, name).numpy() for name in PARTS}
    arrays["texts"] = np.frombuffer(json.dumps(dataclasses.asdict(texts)).encode(), np.uint8)
    write_file(path, json.dumps(dataclasses.asdict(about)), arrays)


def read_index(path: Path) -> tuple[About, Texts, Features]:
    """What `write_index` wrote; features are mapped from the file, and their identities and cameras are unknown.

    Raises:
        InputError: see `read_file`; or a content that is not that of an index, or a different normalisation.
    """
    about, arrays = read_file(path)
    try:
        known = TypeAdapter(About).validate_json(about)
        texts = TypeAdapter(Texts).validate_json(arrays["texts"].tobytes(), strict=True)
        global_features, local_features = (torch.from_numpy(arrays[name]) for name in PARTS)
        labels = [some for some in (texts.names, texts.ids, texts.cameras) if some is not None]
        counts = {len(global_features), len(local_features), *map(len, labels)}
        if len(counts) > 1 or (global_features.ndim, local_features.ndim) != (2, 3):
            raise ValueError
    except (ValueError, KeyError, TypeError):  # pydantic's error is a ValueError
        raise InputError(f"{path}: its content is not that of an index; {AGAIN}") from None
    if (known.mean, known.std) != (MEAN, STD):
        raise InputError(f"{path}: built with the normalisation {known.mean}, {known.std}; build the index again")
    unknown = np.full(len(texts.names), -1)
    return known, texts, Features(global_features, local_features, unknown, unknown, unknown, texts.names)


def write_file(path: Path, about: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an index file; the old one stays until the new one is whole.

    Args:
        about: a text that belongs to them.
        arrays: by name; float32, then uint8.

    Raises:
        InputError: it cannot be written.
    """
    names = {kind: name for name, kind in KINDS.items()}
    header: dict[str, Any] = {}
    offset = 0
    for name, array in arrays.items():
        header[name] = {
            "dtype": names[array.dtype],
            "shape": array.shape,
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
    # The digest comes first, because it replaces the first 64 zeros.
    text = {"sha256": "0" * 64, "format": f"alignedreid index {FORMAT}", "about": about}
    first = json.dumps({"__metadata__": text, **header}).encode()
    first += b" " * (-(len(first) + 8) % ALIGNMENT)
    digest = hashlib.sha256(first)
    for array in arrays.values():
        for block in _blocks(array):
            digest.update(block)

    def write(beside: Path) -> None:
        with open(beside, "wb") as file:
            file.write(len(first).to_bytes(8, "little") + first.replace(b"0" * 64, digest.hexdigest().encode(), 1))
            for array in arrays.values():
                for block in _blocks(array):
                    file.write(block)

    runs.write_atomic(path, write)


def _blocks(array: np.ndarray) -> list[memoryview]:
    """The bytes of an array in views of 64 MB, so that a mapped one is never in memory as a whole."""
    flat = memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return [flat[begin : begin + (1 << 26)] for begin in range(0, len(flat), 1 << 26)]


def read_file(path: Path) -> tuple[str, dict[str, np.ndarray]]:
    """What `write_file` wrote; the arrays are mapped, not read into memory, and may be written to without effect.

    Raises:
        InputError: absent, not an index, of a newer version, or damaged.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # reading a pipe may never end
            raise InputError(f"{path}: not a file; give the file that Index.save wrote")
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            first = file.read(length) if length <= LONGEST_HEADER else b""
    except FileNotFoundError:
        raise InputError(f"{path}: no such index; build one with Index.build and save it there") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check its permissions and its disk") from None
    try:
        header = json.loads(first)
        text = header.pop("__metadata__")
        form, version = text["format"].rsplit(" ", 1)
        if form != "alignedreid index":
            raise KeyError
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        raise InputError(f"{path}: not an index, or damaged; give a file that Index.save wrote, or {AGAIN}") from None
    if version != str(FORMAT):
        raise InputError(
            f"{path}: an index of format {version[:20]}, and this version of the library reads format {FORMAT}; use "
            "the version that wrote it, or build the index again"
        )
    try:
        kept = text["sha256"].encode()
        begin = 8 + length
        end = begin + max(entry["data_offsets"][1] for entry in header.values())
        if len(kept) != 64 or end != size or _digest(path, first.replace(kept, b"0" * 64, 1), begin) != kept.decode():
            raise ValueError
        arrays = {name: _map(path, begin, entry) for name, entry in header.items()}
        return str(text["about"]), arrays
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError, IndexError, OSError, OverflowError):
        raise InputError(f"{path}: damaged; {AGAIN}") from None


def _digest(path: Path, first: bytes, begin: int) -> str:
    digest = hashlib.sha256(first)
    with open(path, "rb") as file:
        file.seek(begin)
        while block := file.read(1 << 24):
            digest.update(block)
    return digest.hexdigest()


def _map(path: Path, begin: int, entry: Mapping[str, Any]) -> np.ndarray:
    """One array of the file, mapped; a page is copied when it is written to, so the file never changes."""
    kind, shape = KINDS[entry["dtype"]], tuple(entry["shape"])
    first, last = entry["data_offsets"]
    if last - first != kind.itemsize * math.prod(shape):
        raise ValueError
    if 0 in shape:  # nothing can be mapped
        return np.zeros(shape, kind)
    return np.asarray(np.memmap(path, dtype=kind, mode="c", offset=begin + first, shape=shape))
