"""Reading what `torch.save` or safetensors wrote as data: nothing in a file is executed.

No other module calls `torch.load`. A safetensors file is a header of JSON and then bytes; it is read here, so that it
needs no package more.

If a file cannot be read, its first bytes tell what it is and what its owner can do about it; PyTorch's own message is
never passed on, because it advises to load the file without this protection.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
import warnings
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

AGAIN = "copy or download it again"
UNPACK = "unpack it and give the .pth file inside"
SAVE = "save model.state_dict() with torch.save and give that file"
GET_FILE = "download the file itself"

# How an unreadable file begins, what it is, and what to do; the first row that matches counts. For a zip
# (PyTorch's own format, and that of other programs) the line "PK" is matched, then the names inside, one per line.
KINDS: tuple[tuple[bytes, str, str], ...] = (
    (rb"\Z", "an empty file", AGAIN),
    (rb"\0+\Z", "it begins with zeros, as an unfinished copy does", AGAIN),
    (rb"version https://git-lfs", "a git-lfs pointer, not the file that it points to", "fetch the file: git lfs pull"),
    (rb"PK\n.*/constants\.pkl\n", "a TorchScript program", "save model.state_dict() of the model that it was made of"),
    (rb"PK\n.*data\.pkl\n", "damaged", AGAIN),
    (rb"PK\n.*\.weights\.h5\n", "a Keras model", SAVE),
    (rb"PK\n([^\n]+\.npy\n)+\Z", "a numpy archive", SAVE),
    (rb"PK\n", "a zip archive of other files", UNPACK),
    (rb"PK", "cut short or damaged", AGAIN),
    (rb"\x1f\x8b|BZh|\xfd7zXZ\0|\x28\xb5\x2f\xfd|7z\xbc\xaf|Rar!|.{257}ustar", "a compressed or tar archive", UNPACK),
    (rb"\x89HDF\r\n", "an HDF5 file (of Keras or MATLAB)", SAVE),
    (rb"\x93NUMPY", "a numpy array", SAVE),
    (rb"\xff\xd8\xff|\x89PNG|GIF8|%PDF", "an image or a document", SAVE),
    (rb".{6}\0\0\{", "a safetensors file that is cut short or damaged", AGAIN),
    (rb"\x08[\0-\x1f][\x12\x1a\x22\x3a\x42]", "an ONNX model", "give the PyTorch weights that it was exported from"),
    # PyTorch's own files before they were zip archives.
    (rb"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19\.", "cut short or damaged", AGAIN),
    (rb"\x80", "a Python pickle that torch.save did not make", SAVE),
    (rb"(\xef\xbb\xbf)?\s*<|(?i:.*<html|.*<!doctype)", "a web page, not the file that it offers", GET_FILE),
    (rb"[^\0-\x08\x0b\x0e-\x1f]+\Z", "a text file", GET_FILE),
    (rb"", "cut short, damaged, or of a different program", f"{AGAIN}, or {SAVE}"),
)

SAFETENSORS = re.compile(rb".{6}\0\0\{", re.DOTALL)  # the length of the JSON that follows, in 8 bytes
# Their names of PyTorch's types.
SAFE_TYPES = {
    **{"BOOL": "bool", "U8": "uint8", "I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64"},
    **{"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"},
}
LONGEST_HEADER = 100_000_000  # bytes, as safetensors itself allows


class UnreadableError(Exception):
    """A file that is not read, with two clauses for a message: what it is, and what to do."""

    def __init__(self, what: str, advice: str):
        super().__init__(what)
        self.what, self.advice = what, advice


def load(path: str | Path) -> Any:
    """The tensors, numbers, strings and containers that `torch.save` wrote, or safetensors' tensors, on the CPU.

    Raises:
        FileNotFoundError: no such file.
        UnreadableError: it cannot be read, or refers to more than data.
    """
    import torch  # here: see `folder`

    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # reading a pipe or a device may never end
            raise UnreadableError("a folder" if os.path.isdir(path) else "not a regular file", "name the file itself")
        with open(path, "rb") as file:
            head = file.read(4096)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:  # the latter: a path with a zero byte
        what = getattr(error, "strerror", None) or str(error)
        raise UnreadableError(what, "check the path, its permissions and its disk") from None
    try:
        if SAFETENSORS.match(head):
            return _load_safetensors(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about old formats; what cannot be read is reported below
            return torch.load(path, map_location="cpu", weights_only=True)
    except UnreadableError:
        raise
    except Exception as error:  # a damaged file can fail in any way
        asked = re.search(r"GLOBAL (\S+)", str(error))
        if asked:
            advice = "in the program that made it, save model.state_dict() alone"
            raise UnreadableError(f"it refers to {asked[1]}", advice) from None
        raise UnreadableError(*_identify(path, head)) from None


def _load_safetensors(path: str | Path) -> dict[str, Any]:
    """The tensors of a safetensors file by name; any exception means that it is damaged.

    Source: the format's description in the safetensors repository. Every byte after the header belongs to exactly one
    tensor.
    """
    import torch  # here: see `folder`

    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(LONGEST_HEADER, os.path.getsize(path) - 8):
            raise ValueError("the header is longer than the file")
        header = json.loads(file.read(length).decode())
        content = torch.frombuffer(bytearray(file.read() + b"\0"), dtype=torch.uint8)[:-1]  # no empty buffer
    header.pop("__metadata__", None)
    tensors, end = {}, 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        if entry["dtype"] not in SAFE_TYPES:
            advice = "give weights in float32, float16 or bfloat16"
            raise UnreadableError(f"{name} is of type {entry['dtype']}", advice)
        kind = getattr(torch, SAFE_TYPES[entry["dtype"]])
        shape, (begin, after) = entry["shape"], entry["data_offsets"]
        numbers = [*shape, begin, after]
        if any(type(number) is not int or number < 0 for number in numbers) or begin != end:
            raise ValueError("shapes and places have to be whole numbers, without gaps")
        if after - begin != math.prod(shape) * kind.itemsize:
            raise ValueError("a tensor's bytes are not those of its shape")
        # Copied: its bytes may begin at a place that its type cannot.
        tensors[name], end = content[begin:after].clone().view(kind).view(shape), after
    if end != len(content):
        raise ValueError("bytes that belong to no tensor")
    return tensors


def _identify(path: str | Path, head: bytes) -> tuple[str, str]:
    """What an unreadable file is that begins with `head`, and what to do, one clause each."""
    with suppress(Exception), zipfile.ZipFile(path) as archive:  # a damaged zip can fail in any way
        head = "".join(f"{name}\n" for name in ["PK", *archive.namelist()]).encode()
    return next((what, advice) for pattern, what, advice in KINDS if re.match(pattern, head, re.DOTALL))
