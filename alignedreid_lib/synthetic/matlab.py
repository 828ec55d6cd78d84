"""The MATLAB files of the releases: CUHK03's images in version 7.3, Market-1501's index lists in version 5."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np

CUHK03_SPLITS = 20


def write_cuhk03_mat(
    path: Path,
    sizes: list[int],
    shots: dict,
    draw: Callable[[list, str], Iterator],
    rng: np.random.Generator,
    num_test_ids: int,
) -> None:
    """cuhk-03.mat, a MATLAB 7.3 file: HDF5 behind 512 bytes of MATLAB's own, arrays transposed, cells as references."""
    reference = h5py.special_dtype(ref=h5py.Reference)
    with h5py.File(path, "w", userblock_size=512) as mat:
        store = mat.create_group("#refs#")

        def put(array: np.ndarray, kind: str, group: h5py.Group = store, name: str | None = None) -> h5py.Reference:
            dataset = group.create_dataset(name or f"r{len(store):06d}", data=array, dtype=array.dtype)
            dataset.attrs["MATLAB_class"] = np.bytes_(kind)
            return dataset.ref

        absent = put(np.zeros(2, np.uint64), "uint8")
        mat[absent].attrs["MATLAB_empty"] = np.uint8(1)
        for kind, of_kind in shots.items():
            pictures = draw(list(of_kind.values()), "pixels")
            references = {cell: put(next(pictures).transpose(2, 1, 0), "uint8") for cell in of_kind}
            table, first = np.empty((1, len(sizes)), reference), 0
            for pair, size in enumerate(sizes):
                cells = np.empty((10, size), reference)
                for row in range(10):
                    for person in range(size):
                        cells[row, person] = references.get((first + person, row), absent)
                table[0, pair] = put(cells, "cell")
                first += size
            put(table, "cell", mat, kind)
        tests = np.empty((1, CUHK03_SPLITS), reference)
        persons = np.array([(pair + 1, person + 1) for pair, size in enumerate(sizes) for person in range(size)])
        for i in range(CUHK03_SPLITS):
            chosen = np.sort(rng.permutation(len(persons))[:num_test_ids])
            tests[0, i] = put(persons[chosen].T.astype(np.float64), "double")
        put(tests, "cell", mat, "testsets")
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64, HDF5 schema 1.00 .".ljust(116) + bytes(8) + b"\0\2IM")


def mat5(name: str, values: Sequence[float]) -> bytes:
    """A MATLAB 5 file of one row of numbers."""

    def element(kind: int, content: bytes) -> bytes:
        return struct.pack("<II", kind, len(content)) + content + bytes(-len(content) % 8)

    matrix = (
        element(6, struct.pack("<II", 6, 0))
        + element(5, struct.pack("<ii", 1, len(values)))
        + element(1, name.encode())
        + element(9, struct.pack(f"<{len(values)}d", *values))
    )
    return b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H2s", 0x100, b"IM") + element(14, matrix)
