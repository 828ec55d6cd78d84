"""Searching an index of a million images, mapped from its file, against the bare distances.

    python tests/bench_index.py [IMAGES]

A hundred queries, global features 256 wide, numbers instead of people. The features have 1 GB. They are written by a
process of their own, so that the memory measured here is that of opening and searching. The pages of the mapped file
are counted apart: the system keeps them while there is room and drops them without loss. The floor is the product of
the features alone, block by block.
"""

import multiprocessing
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from timing import measured, owned, peak, record

from alignedreid_lib.evaluation.features import Features
from alignedreid_lib.search import storage
from alignedreid_lib.search.nearest import ROWS, nearest


def build(path: Path, size: int, channels: int) -> float:
    """Write the index; the seconds of writing."""
    values = np.lib.format.open_memmap(path.with_suffix(".npy"), "w+", np.float32, (size, channels))
    rng = np.random.default_rng(0)
    for begin in range(0, size, ROWS):
        values[begin : begin + ROWS] = rng.standard_normal(values[begin : begin + ROWS].shape, dtype=np.float32)
    numbers, names = np.full(size, -1), [f"{k:08}.jpg" for k in range(size)]
    features = Features(torch.from_numpy(values), torch.zeros(size, 0, 0), numbers, numbers, numbers, names)
    about = storage.About("0" * 64, 256, 128, storage.MEAN, storage.STD, "float32")
    began = time.perf_counter()
    storage.write_index(path, about, storage.Texts(names, None, None), features)
    written = time.perf_counter() - began
    path.with_suffix(".npy").unlink()
    return written


def main(size: int = 1_000_000, channels: int = 256, queries: int = 100) -> None:
    """Run and print."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "million.index"
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            written = pool.submit(build, path, size, channels).result()
        (_, _, gallery), opened, opening = measured(lambda: storage.read_index(path), 1, owned)
        some = Features(gallery.global_features[:queries] + 0.1, *_nothing(queries))

        def product() -> None:
            for begin in range(0, size, ROWS):
                torch.mm(some.global_features, gallery.global_features[begin : begin + ROWS].T)

        product()  # the file is read now, for both
        _, floor, _ = measured(product, 3, owned)
        (rows, _), seconds, searching = measured(lambda: nearest(some, gallery, "global", 10), 3, owned)
        assert (rows[:, 0] == np.arange(queries)).all(), "each query finds the image that it was made from"
    print(f"{queries} queries x {size} images: {seconds:.2f} s, {seconds / floor:.1f} x the product")
    print(f"written in {written:.1f} s; opened and checked in {opened:.1f} s with {opening / 1e6:.0f} MB of its own")
    print(f"searched with {searching / 1e6:.0f} MB more; {peak():.0f} MB at the peak, the mapped file included")
    what = f"{queries} x {size}, index mapped from its file"
    record("search", what, seconds, floor, "bare product", ratio=seconds / floor, megabytes=searching / 1e6)
    record("search", f"opening and checking an index of {size}", opened, megabytes=opening / 1e6)


def _nothing(count: int) -> tuple:
    """What else features have, of images of which nothing is known."""
    numbers = np.full(count, -1)
    return torch.zeros(count, 0, 0), numbers, numbers, numbers, [str(k) for k in range(count)]


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
