"""5 000 damaged index files: each is refused in one line, or is the same index; nothing in a file runs."""

import random

import numpy as np
import pytest
from test_fuzz import Trace, mutate

from alignedreid_lib.errors import InputError
from alignedreid_lib.evaluation.features import Features
from alignedreid_lib.search import Threshold, storage

CASES = 5000


def parts(index):
    """What answers depend on."""
    about, texts, features = index
    return about, texts, features.global_features.tolist(), features.local_features.tolist()


@pytest.fixture
def good(tmp_path):
    import torch

    values = torch.rand(6, 8, generator=torch.Generator().manual_seed(0))
    numbers = np.arange(6)
    features = Features(values, values.view(6, 2, 4), numbers, numbers, numbers, list("abcdef"))
    about = storage.About(
        "0f" * 32,
        64,
        32,
        storage.MEAN,
        storage.STD,
        "float32",
        Threshold(1.5, "global", 0.1, 0.9, 20, 6, "drawn"),
    )
    storage.write_index(tmp_path / "good", about, storage.Texts(features.names, [1, 1, 2, 2, "x", "y"], None), features)
    return (tmp_path / "good").read_bytes()


def test_damaged_files(good, tmp_path):
    path, rng = tmp_path / "it", random.Random(0)
    path.write_bytes(good)
    wanted = parts(storage.read_index(path))
    length = 8 + int.from_bytes(good[:8], "little")
    refused = 0
    for case in range(CASES):
        # Half of the damage is in the header, which is what the reader understands.
        data = mutate(good[:length], rng) + good[length:] if case % 2 else mutate(good, rng)
        path.write_bytes(data)
        try:
            found = parts(storage.read_index(path))
        except InputError as error:
            assert "\\n" not in str(error) and len(str(error)) < 400, f"case {case}: {error}"
            refused += 1
        except Exception as error:
            raise AssertionError(f"case {case} escaped: {type(error).__name__}: {error}") from error
        else:
            assert found == wanted, f"case {case} gives a different index"
    assert refused > CASES // 2


def test_a_pickle_does_not_run(tmp_path):
    import pickle

    path = tmp_path / "it"
    path.write_bytes(pickle.dumps(Trace(tmp_path / "ran")))
    np.save(tmp_path / "array.npy", np.array([Trace(tmp_path / "ran")]), allow_pickle=True)
    for data in (path.read_bytes(), (tmp_path / "array.npy").read_bytes()):
        path.write_bytes(data)
        with pytest.raises(InputError, match="not an index"):
            storage.read_index(path)
    assert not (tmp_path / "ran").exists()
