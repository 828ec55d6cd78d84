"""CUHK03: a MATLAB v7.3 file of images inside a zip, read in place.

`cuhk-03.mat` contains `detected` and `labeled`: five camera pairs each, a table of persons x ten cells per pair (five
of the first view, five of the second), with an image or nothing in each cell. Derived in notebooks/01_datasets.
"""

import io
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from PIL import Image
from tqdm import tqdm

from alignedreid_lib.datasets.cuhk03_split import KINDS, LISTS, PERSONS, VIEW, cell_name, load_split, new_protocol
from alignedreid_lib.datasets.market_duke import looks_like
from alignedreid_lib.datasets.partitions import format_name, make_partitions
from alignedreid_lib.datasets.zip_reading import DeflatedFile, list_files, open_archive
from alignedreid_lib.errors import InputError

_THREADS = 2
_PENDING = 64  # images waiting to be encoded: bounds the memory


class Cell(NamedTuple):
    """A cell that may contain an image."""

    address: int  # where the image's header is in the file: equal addresses are one image
    reference: h5py.Reference
    kind: str
    person: int  # counted from 0 through the camera pairs
    place: int  # 0 to 9


def prepare_cuhk03(path: Path, out: Path, num_val_ids: int, split_file: Path | None = None) -> None:
    """Write `out/detected/`, `out/labeled/` (images and partitions.pkl) and `out/all/` (images).

    Args:
        path: the release archive.
        out: an existing, empty folder.
        num_val_ids: identities of each validation split.
        split_file: see `cuhk03_split.load_split`, for an archive that is not the release; None takes the new protocol.

    Raises:
        InputError: the archive or the split file cannot be used, or they do not fit each other.
    """
    split = load_split(split_file) if split_file else new_protocol()
    partitions = {  # before the images, so that a wrong num_val_ids costs nothing
        kind: make_partitions(
            lists["train_im_names"], num_val_ids, lists["query_im_names"], [], lists["gallery_im_names"]
        )
        for kind, lists in split.items()
    }
    for kind in (*KINDS, "all"):
        (out / kind / "images").mkdir(parents=True)
    with open_archive(path) as archive:
        folders = list_files(archive)
        entry = next((files["cuhk-03.mat"] for files in folders.values() if "cuhk-03.mat" in files), None)
        if entry is None:
            raise InputError(
                f"{path} has no file cuhk-03.mat, so it is not cuhk03 (it looks like {looks_like(folders)}); "
                "give the release archive of cuhk03"
            )
        where = f"{path}: {entry.filename}"
        with DeflatedFile(path, entry) as file:
            if file.read(19) == b"MATLAB 5.0 MAT-file":
                raise InputError(f"{where} is a MAT file of version 5; save it again with -v7.3")
            with _open_mat(file, where) as mat:
                cells, repeats = _list_cells(mat, where, any_size=split_file is not None)
                found = _write_pictures(mat, cells, out, where)
            file.verify()
    for kind in KINDS:
        missing = sorted({name for key in LISTS for name in split[kind][key]} - found[kind])
        if not missing:
            partitions[kind].save(out / kind / "partitions.pkl")
        elif kind == "labeled" and repeats and split_file is None:
            warnings.warn(
                f"{path}: labeled repeats detected and lacks {len(missing)} images of the new protocol; "
                "labeled/ gets images only",
                stacklevel=3,
            )
        else:
            raise InputError(
                f"{path} lacks {len(missing)} {kind} images that {split_file or 'the new protocol'} names "
                f"(first: {missing[0]}); pass the split_file that belongs to this archive"
            )


@contextmanager
def _open_mat(file: DeflatedFile, where: str) -> Iterator[h5py.File]:
    """The HDF5 file inside; an error in it becomes one line."""
    try:
        with h5py.File(file, "r") as mat:
            yield mat
    except (OSError, KeyError, AttributeError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, InputError) or (isinstance(error, OSError) and error.errno is not None):
            raise  # it has its message, or gets it from `disk_errors`
        raise InputError(
            f"{where} cannot be read as a MATLAB v7.3 file of CUHK03 ({error}); download the archive again"
        ) from error


def _list_cells(mat: h5py.File, where: str, any_size: bool) -> tuple[list[Cell], bool]:
    """Every cell, in the file's order, and whether labeled repeats detected's images."""
    cells: list[Cell] = []
    for kind in KINDS:
        if kind not in mat:
            raise InputError(f"{where} has no {kind!r}, so it is not CUHK03's; download the archive again")
        tables = [mat[reference] for reference in np.ravel(mat[kind][()])]
        persons = tuple(table.shape[1] for table in tables)
        if persons != PERSONS and not any_size:
            raise InputError(
                f"{where} has {sum(persons)} persons in pairs of {persons}, the new protocol {sum(PERSONS)} in pairs "
                f"of {PERSONS}; pass the split_file that belongs to this archive"
            )
        first = 0
        for table in tables:
            if table.shape[0] != 2 * VIEW:
                raise InputError(f"{where}: {kind} has {table.shape[0]} cells per person, not 10; download it again")
            addresses = np.empty(table.shape, np.uint64)
            table.id.read(h5py.h5s.ALL, h5py.h5s.ALL, addresses, mtype=h5py.h5t.STD_REF_OBJ)
            references = table[()]
            cells += [
                Cell(int(addresses[place, person]), references[place, person], kind, first + person, place)
                for place in range(2 * VIEW)
                for person in range(table.shape[1])
            ]
            first += table.shape[1]
    addresses_of = {kind: [cell.address for cell in cells if cell.kind == kind] for kind in KINDS}
    return sorted(cells, key=lambda cell: cell.address), addresses_of["detected"] == addresses_of["labeled"]


def _write_pictures(mat: h5py.File, cells: Sequence[Cell], out: Path, where: str) -> dict[str, set[str]]:
    """Encode and write every image; gives the names found, by kind."""
    found: dict[str, set[str]] = {kind: set() for kind in KINDS}

    pending: deque[Future] = deque()
    with (
        tqdm(total=len(cells), desc="cuhk03", unit="cell", disable=None) as progress,
        ThreadPoolExecutor(_THREADS) as pool,
    ):
        for picture, sharing in _read_pictures(mat, cells, where):
            progress.update(len(sharing))
            if picture is None:
                continue
            targets = []
            for cell in sharing:
                name = cell_name(cell.person, cell.place)
                found[cell.kind].add(name)
                # In `all` a view has ten cells: its five detected cells, then its five labeled ones.
                k = cell.place % VIEW + VIEW * KINDS.index(cell.kind)
                targets.append(out / cell.kind / "images" / name)
                targets.append(out / "all" / "images" / format_name(cell.person, cell.place // VIEW, k))
            pending.append(pool.submit(_encode, picture, targets))
            if len(pending) > _PENDING:
                pending.popleft().result()
        for future in pending:
            future.result()
    return found


def _encode(picture: np.ndarray, targets: list[Path]) -> None:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=95, subsampling=0)
    for target in targets:
        target.write_bytes(buffer.getvalue())


def _read_pictures(mat: h5py.File, cells: Sequence[Cell], where: str) -> Iterator[tuple[np.ndarray | None, list[Cell]]]:
    """Each stored image once, [height, width, 3] uint8 or None where absent, with the cells that point to it."""
    for _, group in groupby(cells, key=lambda cell: cell.address):
        sharing = list(group)
        stored = mat[sharing[0].reference] if sharing[0].reference else None
        # MATLAB stores an empty array as its shape, two zeros, marked by an attribute.
        if stored is None or stored.attrs.get("MATLAB_empty", 0) or stored.size == 0 or stored.ndim < 2:
            yield None, sharing
            continue
        if stored.ndim != 3 or stored.shape[0] != 3 or stored.dtype != np.uint8:
            cell = sharing[0]
            raise InputError(
                f"{where}: {cell.kind} person {cell.person} cell {cell.place + 1} is {stored.dtype} {stored.shape}, "
                "not an image; download the archive again"
            )
        yield np.ascontiguousarray(stored[()].T), sharing  # stored transposed
