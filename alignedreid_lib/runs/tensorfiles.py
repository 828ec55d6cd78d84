"""Reading what `torch.save` wrote as data: nothing in a file is executed. No other module calls `torch.load`.

Where a file cannot be read, its first bytes tell what it is and so what its owner can do about it; PyTorch's own
message is never passed on, because it advises to load the file without this protection.
"""

from __future__ import annotations

import os
import re
import stat
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

AGAIN = "copy or download it again"
UNPACK = "unpack it and give the .pth file inside"
SAVE = "save model.state_dict() with torch.save and give that file"

# How a file begins, what it is, and what to do.
BEGINNINGS = (
    (b"version https://git-lfs", "a git-lfs pointer, not the file that it points to", "fetch the file: git lfs pull"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (of Keras or MATLAB)", SAVE),
    (b"\x93NUMPY", "a numpy array", SAVE),
    (b"\x1f\x8b", "a gzip archive", UNPACK),
    (b"BZh", "a bzip2 archive", UNPACK),
    (b"\xfd7zXZ\x00", "an xz archive", UNPACK),
    (b"\x28\xb5\x2f\xfd", "a zstd archive", UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", UNPACK),
    (b"Rar!", "a RAR archive", UNPACK),
    (b"\xff\xd8\xff", "a JPEG image", SAVE),
    (b"\x89PNG", "a PNG image", SAVE),
    (b"GIF8", "a GIF image", SAVE),
    (b"%PDF", "a PDF document", SAVE),
)
OLD_FORMAT = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # how PyTorch's files began before they were zip archives


class UnreadableError(Exception):
    """A file that is not read, with two clauses for a message: what it is, and what to do."""

    def __init__(self, what: str, advice: str):
        super().__init__(what)
        self.what, self.advice = what, advice


def load(path: str | Path) -> Any:
    """The tensors, numbers, strings and containers that `torch.save` wrote, on the CPU.

    Raises:
        FileNotFoundError: no such file.
        UnreadableError: it cannot be read, or asks for more than data.
    """
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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about old formats; what cannot be read is said below
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can fail in any way
        asked = re.search(r"GLOBAL (\S+)", str(error))
        if asked:
            advice = "in the program that made it, save model.state_dict() alone"
            raise UnreadableError(f"it asks for {asked[1]}", advice) from None
        raise UnreadableError(*identify(path, head)) from None


def identify(path: str | Path, head: bytes) -> tuple[str, str]:
    """What a file is that begins with `head` and cannot be read, and what to do, a clause each."""
    if not head:
        return "an empty file", AGAIN
    if not head.strip(b"\0"):
        return "it begins with zeros, as an unfinished copy does", AGAIN
    for beginning, what, advice in BEGINNINGS:
        if head.startswith(beginning):
            return what, advice
    if head.startswith(b"PK"):
        return _identify_zip(path)
    if head[257:262] == b"ustar":
        return "a tar archive", UNPACK
    if head[8:9] == b"{" and head[6:8] == b"\0\0":  # the length of the JSON that follows, in 8 bytes
        return "a safetensors file", "convert it: torch.save(safetensors.torch.load_file(file), 'weights.pth')"
    if head[0] == 8 and head[1:2] < b"\x20" and head[2:3] in (b"\x12", b"\x1a", b"\x22", b"\x3a", b"\x42"):
        return "an ONNX model", "give the PyTorch weights that it was exported from"
    if head[0] == 0x80 and not OLD_FORMAT.startswith(head[: len(OLD_FORMAT)]):
        return "a Python pickle that torch.save did not make", SAVE
    if b"<html" in head.lower() or b"<!doctype" in head.lower() or head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"<":
        return "a web page, not the file that it offers", "download the file itself"
    if not any(byte < 32 and byte not in b"\t\n\r\f" for byte in head):
        return "a text file", "download the file itself"
    return "cut short, damaged, or of another program", f"{AGAIN}, or {SAVE}"


def _identify_zip(path: str | Path) -> tuple[str, str]:
    """The same of a zip archive, the form of PyTorch's own files and of many others."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception:  # likewise
        return "cut short or damaged", AGAIN
    if any(name.endswith("/constants.pkl") for name in names):
        return "a TorchScript program", "save model.state_dict() of the model that it was made of"
    if any(name.endswith("data.pkl") for name in names):
        return "damaged", AGAIN
    if names and all(name.endswith(".npy") for name in names):
        return "a numpy archive", SAVE
    if any(name.endswith(".weights.h5") for name in names):
        return "a Keras model", SAVE
    return "a zip archive of other files", UNPACK
