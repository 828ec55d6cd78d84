"""What real folders, tables, files and cells hold that nobody planned; see also test_sightings and test_sources."""

import io
import json
import shutil
import warnings
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from alignedreid_lib import datasets, images
from alignedreid_lib.datasets import Partitions
from alignedreid_lib.errors import InputError


def jpeg(seed: int = 0, size: tuple[int, int] = (8, 16)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (seed % 256, seed // 256, 0)).save(buffer, "JPEG")
    return buffer.getvalue()


def people(folder, names=("alice", "bob", "carol", "dave"), count=3):
    for number, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for k in range(count):
            (folder / name / f"{k}.jpg").write_bytes(jpeg(50 * number + k))
    return folder


# A prepared dataset of which something is gone.


@pytest.mark.parametrize("gone", ["a picture", "all pictures", "partitions.pkl"])
def test_what_is_gone_comes_back_as_the_message_says(gone, tmp_path):
    source = people(tmp_path / "p")
    folder = datasets.prepare("folder", source, tmp_path)
    if gone == "all pictures":
        shutil.rmtree(folder / "images")
    elif gone == "a picture":
        datasets.open_dataset(folder, "test").paths[0].unlink()
    else:
        (folder / gone).unlink()
    assert datasets.prepare("folder", source, tmp_path) == folder, "it is found, and nothing is made"
    with pytest.raises(InputError, match=f"delete {folder} and prepare it again"):
        datasets.open_dataset(folder, "test")
    shutil.rmtree(folder)
    assert len(datasets.open_dataset(datasets.prepare("folder", source, tmp_path), "test"))


def test_a_picture_that_a_list_names_is_not_to_be_removed(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"")
    with pytest.raises(InputError, match=r"a\.jpg: not a picture that decodes .*put a whole copy there$"):
        images.decode(tmp_path / "a.jpg")


@pytest.mark.parametrize("content", ["", "{", "[" * 100_000])
def test_whether_cameras_are_known_is_not_guessed(content, tmp_path):
    folder = datasets.prepare("folder", people(tmp_path / "p"), tmp_path)
    (folder / "prepared.json").write_text(content)
    with pytest.raises(InputError, match=r"prepared\.json cannot be read; restore it, or delete"):
        datasets.open_dataset(folder, "test")


def test_labels_count_from_0():
    with pytest.raises(InputError, match="label below 0"):
        Partitions(trainval_im_names=["00000001_0001_00000000.jpg"], trainval_ids2labels={1: -1})
