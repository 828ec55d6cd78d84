"""What several test modules share."""

import multiprocessing
import os
import signal
import sys
from multiprocessing.context import BaseContext
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch
from PIL import Image

from alignedreid_lib.datasets import Partitions

# A slow machine, or other work on it, is not a failure.
hypothesis.settings.register_profile("anywhere", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("anywhere")


@pytest.fixture(scope="session", autouse=True)
def signals() -> None:
    """Tests may have been started by `nohup`, or in the background of a shell, which ignore SIGHUP and SIGINT."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tests use tensors so small that a second thread costs more than it brings, above all on a busy machine."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """What a test draws without a seed does not depend on the tests before it, nor on which run beside it."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def warm(signals: None) -> BaseContext:
    """Processes that are forked from one that has imported the library and these tests: a start takes 0.1 s, not 5."""
    context = multiprocessing.get_context("forkserver")
    modules = ("agreement", "datasets", "distributed", "exchange", "saving", "training")
    context.set_forkserver_preload([f"test_{name}" for name in modules])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENBLAS_NUM_THREADS", "1")  # numpy starts its threads when imported, and threads do not fork
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # where the server looks for what to import
        context.Process(target=int).start()
    return context


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
