"""Files given as weights that are not: each is refused in one line that says what it is, and nothing in it runs."""

import ast
import base64
import gzip
import io
import json
import os
import pickle
import tarfile
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from alignedreid_lib import runs
from alignedreid_lib.errors import InputError
from alignedreid_lib.model import read_weights
from alignedreid_lib.runs import tensorfiles

LIBRARY = Path(tensorfiles.__file__).parent


class Bomb:
    """Its pickle makes the folder `ran` where it is read."""

    def __reduce__(self):
        return os.mkdir, ("ran",)


def saved(content, **how):
    buffer = io.BytesIO()
    torch.save(content, buffer, **how)
    return buffer.getvalue()


def zipped(*names):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return buffer.getvalue()


def made(write):
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


def tar(buffer):
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("weights.pth"))


def safetensors(data=b"\0\0\0\0", **entries):
    header = json.dumps(entries or {"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return len(header).to_bytes(8, "little") + header + data


def hdf5(buffer):
    with h5py.File(buffer, "w") as file:
        file["kernel"] = [1.0]


WEIGHTS = saved({"w": torch.arange(3000.0)})
OLD = saved({"w": torch.arange(3000.0)}, _use_new_zipfile_serialization=False)
JPEG = made(lambda buffer: Image.new("RGB", (8, 8)).save(buffer, "JPEG"))
FILES = {
    "empty": (b"", "an empty file"),
    "zeros": (bytes(5000), "begins with zeros"),
    "git-lfs pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "git-lfs pointer.*git lfs pull",
    ),
    "web page": (b"<!DOCTYPE html><html><body>Sign in</body></html>", "a web page.*download the file itself"),
    "web page after a mark": (b"\xef\xbb\xbf\r\n<HTML lang=en>", "a web page"),
    "XML of a store": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "a web page"),
    "JSON": (b'{"error": "not found"}', "a text file"),
    "text": (b"hello\n", "a text file"),
    "ONNX": (b"\x08\x07\x12\x07pytorch\x1a\x052.1.0:\x10" + bytes(range(200)), "an ONNX model"),
    "safetensors, cut short": (
        safetensors()[:-1],
        "a safetensors file that is cut short or damaged.*download it again",
    ),
    "safetensors, longer": (safetensors() + b"x", "a safetensors file that is cut short or damaged"),
    "safetensors of 8 bits": (
        safetensors(b"x", w={"dtype": "F8_E4M3", "shape": [1], "data_offsets": [0, 1]}),
        "w is of type F8_E4M3.*give weights in float32",
    ),
    "TorchScript": (zipped("m/data.pkl", "m/code/__torch__.py", "m/constants.pkl"), "a TorchScript program"),
    "Keras .h5": (made(hdf5), "an HDF5 file"),
    ".keras": (zipped("config.json", "model.weights.h5"), "a Keras model"),
    ".npz": (made(lambda buffer: np.savez(buffer, w=np.ones(3))), "a numpy archive"),
    ".npy": (made(lambda buffer: np.save(buffer, np.ones(3))), "a numpy array"),
    "zip": (zipped("weights.pth"), "a zip archive of other files.*unpack"),
    "tar": (made(tar), "tar archive.*unpack"),
    "tar.gz": (gzip.compress(b"x"), "a compressed or tar archive.*unpack"),
    "image": (JPEG, "an image or a document"),
    "pickle": (pickle.dumps({"w": [1.0]}), "a Python pickle"),
    "whole model": (saved(torch.nn.Linear(2, 2)), r"it refers to torch\.nn.*Linear.*save model\.state_dict\(\) alone"),
    "trap": (saved(Bomb()), r"it refers to \w+\.mkdir"),
    "old trap": (saved(Bomb(), _use_new_zipfile_serialization=False), r"it refers to \w+\.mkdir"),
    "plain trap": (pickle.dumps(Bomb()), r"weights\.pth: not a file of weights"),
    "cut short": (WEIGHTS[: len(WEIGHTS) // 2], "cut short or damaged.*download it again"),
    "cut short, old": (OLD[: len(OLD) // 2], "cut short or damaged.*download it again"),
    "cut very short": (WEIGHTS[:3], "cut short or damaged"),
    "noise": (bytes(np.random.default_rng(0).integers(0, 256, 500, dtype=np.uint8)), "cut short, damaged"),
}


@pytest.mark.parametrize("kind", FILES)
def test_what_is_no_weights_file_is_said_in_one_line(kind, tmp_path, monkeypatch):
    content, says = FILES[kind]
    monkeypatch.chdir(tmp_path)
    for name, read in (
        ("weights.pth", read_weights),
        ("checkpoint.pt", lambda path: runs.load_checkpoint(path.parent)),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(InputError, match=says if name == "weights.pth" else "remove it") as raised:
            read(path)
        message = str(raised.value)
        assert message.startswith(f"{path}: ") and "\n" not in message
        for advice in ("weights_only", "likely", "add_safe_globals", "torch.load("):
            assert advice not in message, "PyTorch's own words advise to do without protection"
    assert not Path("ran").exists()


def test_what_is_no_file_is_said_in_one_line(tmp_path):
    run = tmp_path / "run"
    (run / "checkpoint.pt").mkdir(parents=True)
    with pytest.raises(InputError, match=r"checkpoint\.pt: cannot be read \(a folder\)"):
        runs.load_checkpoint(run)
    with pytest.raises(InputError, match=r"a folder.; name the file itself"):
        read_weights(run)
    (run / "weights.pth").write_bytes(WEIGHTS)
    with pytest.raises(InputError, match=r"a folder.; give weights\.pth in it"):
        read_weights(run)
    with pytest.raises(InputError, match=r"null: not a file of weights alone .not a regular file"):
        read_weights(os.devnull)
    with pytest.raises(InputError, match=r"no such weights file; .*imagenet"):
        read_weights(tmp_path / "ImageNet")
    with pytest.raises(InputError, match="File name too long"):
        read_weights(tmp_path / ("w" * 300))
    with pytest.raises(InputError, match="null"):
        read_weights("a\0b")
    with pytest.raises(InputError, match="weights is True; it has to be a file"):
        read_weights(True)
    assert runs.load_checkpoint(tmp_path / "absent") is None


def test_files_with_other_names_and_places_are_read(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    weights = {"module._orig_mod.w": torch.ones(2), "features.denseblock1.denselayer1.norm.1.weight": torch.ones(1)}
    torch.save(weights, tmp_path / "model.pth.tar-60")  # as deep-person-reid names its files, which are not tars
    found = read_weights("~/model.pth.tar-60")
    assert list(found) == ["w", "features.denseblock1.denselayer1.norm1.weight"]
    torch.save({"format": 3, "models": [found], "epoch": 1}, tmp_path / "checkpoint.pt")
    with pytest.raises(InputError, match=r"contains no state dict .*; give weights\.pth of the same run"):
        read_weights(tmp_path / "checkpoint.pt")


def test_one_module_reads_torch_s_files():
    """The guard is in one place: no other module of the library unpickles, nor lets torchvision do it."""
    for path in LIBRARY.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                guarded = called == "torch.load" and "weights_only=True" in ast.unparse(node)
                assert called != "torch.load" or (path.name == "tensorfiles.py" and guarded), path
                assert "load_state_dict_from_url" not in called and not called.endswith("get_state_dict"), path
                assert not (called.endswith("get_model") and len(node.args) + len(node.keywords) > 1), path


# What the package safetensors 0.8 writes for {"b": 2 x 3 of bfloat16, "a": one float32, "c": True}, with metadata.
WRITTEN_BY_SAFETENSORS = (
    "yAAAAAAAAAB7Il9fbWV0YWRhdGFfXyI6eyJmb3JtYXQiOiJwdCJ9LCJhIjp7ImR0eXBlIjoiRjMyIiwic2hhcGUiOltdLCJkYXRh"
    "X29mZnNldHMiOlswLDRdfSwiYiI6eyJkdHlwZSI6IkJGMTYiLCJzaGFwZSI6WzIsM10sImRhdGFfb2Zmc2V0cyI6WzQsMTZdfSwi"
    "YyI6eyJkdHlwZSI6IkJPT0wiLCJzaGFwZSI6WzFdLCJkYXRhX29mZnNldHMiOlsxNiwxN119fSAgIAAAwD8AAIA/AEBAQIBAoEAB"
)


def test_a_safetensors_file_is_read_as_its_own_package_reads_it(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(base64.b64decode(WRITTEN_BY_SAFETENSORS))
    found = read_weights(path)
    assert found.keys() == {"a", "b", "c"}
    assert torch.equal(found["a"], torch.tensor(1.5)) and torch.equal(found["c"], torch.tensor([True]))
    assert torch.equal(found["b"], torch.arange(6, dtype=torch.bfloat16).view(2, 3))
    path.write_bytes(b"")
    assert found["b"][1, 2] == 5, "a tensor outlives its file"


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [1], "data_offsets": [0, 400]},
        {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]},
        {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": "1", "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1]},
        {"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]},
        "F32",
    ],
)
def test_a_safetensors_header_that_does_not_fit_its_bytes_is_refused(entry, tmp_path):
    (tmp_path / "w").write_bytes(safetensors(w=entry))
    with pytest.raises(InputError, match="a safetensors file that is cut short or damaged"):
        read_weights(tmp_path / "w")
    overlap = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    (tmp_path / "w").write_bytes(safetensors(w=overlap, v=overlap))
    with pytest.raises(InputError, match="cut short or damaged"):
        read_weights(tmp_path / "w")


def test_damaged_safetensors_files_are_read_or_refused_in_one_line(tmp_path):
    whole, random = base64.b64decode(WRITTEN_BY_SAFETENSORS), np.random.default_rng(0)
    for _ in range(100):
        content = bytearray(whole)
        for place in random.integers(0, len(whole), random.integers(1, 5)):
            content[place] = random.integers(0, 256)
        (tmp_path / "w").write_bytes(content)
        try:
            read_weights(tmp_path / "w")
        except InputError as error:
            assert "\n" not in str(error)
