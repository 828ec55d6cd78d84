"""Searching an index of a million images, mapped from its file, against the bare distances.

    python tests/bench_index.py [IMAGES]

A hundred queries, global features 256 wide, numbers instead of people. The features have 1 GB, and a search never has
more than a block of them in memory of its own; what the system keeps of the file is counted, too. The floor is the
product of the features alone, block by block.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from timing import peak, record

from alignedreid_lib.evaluation.features import Features
from alignedreid_lib.search import storage
from alignedreid_lib.search.nearest import ROWS, nearest


def main(size: int = 1_000_000, channels: int = 256, queries: int = 100) -> None:
    """Run and print."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "million.index"
        values = rng.standard_normal((size, channels), dtype=np.float32)
        known = values[:queries] + 0.1
        numbers, names = np.full(size, -1), [f"{k:08}.jpg" for k in range(size)]
        features = Features(torch.from_numpy(values), torch.zeros(size, 0, 0), numbers, numbers, numbers, names)
        about = storage.About("0" * 64, 256, 128, storage.MEAN, storage.STD, "float32")
        began = time.perf_counter()
        storage.write_index(path, about, storage.Texts(names, None, None), features)
        written = time.perf_counter() - began
        del values, features
        began = time.perf_counter()
        _, _, gallery = storage.read_index(path)
        opened = time.perf_counter() - began
        some = Features(torch.from_numpy(known), torch.zeros(queries, 0, 0), *[numbers[:queries]] * 3, names[:queries])
        began = time.perf_counter()
        for begin in range(0, size, ROWS):
            torch.mm(some.global_features, gallery.global_features[begin : begin + ROWS].T)
        floor = time.perf_counter() - began
        began = time.perf_counter()
        rows, _ = nearest(some, gallery, "global", 10)
        seconds = time.perf_counter() - began
        assert (rows[:, 0] == np.arange(queries)).all(), "each query finds the image that it was made from"
    print(
        f"{queries} queries x {size} images, {channels} channels: {seconds:.2f} s, {seconds / floor:.1f} x the product"
    )
    print(
        f"written in {written:.1f} s, opened and checked in {opened:.1f} s; {peak():.0f} MB at the peak of the process"
    )
    what = f"{queries} x {size}, index mapped from its file"
    record("search", what, seconds, floor, "bare product", ratio=seconds / floor, megabytes=peak())
    record("search", f"opening and checking an index of {size}", opened)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
