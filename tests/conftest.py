"""What several test modules share."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from alignedreid_lib.datasets import Partitions


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tests use tensors so small that a second thread costs more than it brings, above all on a busy machine."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of recorded fixtures beside the checkout; tests that need it skip where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not (folder / "fixtures").is_dir():
        pytest.skip("the recorded fixtures (../shared) are not beside this checkout")
    return folder


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory) -> Path:
    """A data root with the dataset `tiny`: 6 training people of 4 pictures, 3 test people; a person is a colour."""
    root = tmp_path_factory.mktemp("data")
    (root / "tiny" / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    names = {"trainval": [], "test": []}
    for person in range(9):
        colour = rng.integers(0, 256, 3)
        for k in range(4):
            name = f"{person:08d}_{k % 2:04d}_{k // 2:08d}.jpg"
            pixels = np.clip(colour + rng.integers(-20, 20, (32, 16, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / "tiny" / "images" / name)
            names["trainval" if person < 6 else "test"].append(name)
    Partitions(
        trainval_im_names=names["trainval"],
        trainval_ids2labels={person: person for person in range(6)},
        test_im_names=names["test"],
        test_marks=[0, 1, 1, 1] * 3,
    ).save(root / "tiny" / "partitions.pkl")
    return root
