"""CUHK03's training, query and gallery images: the new protocol, or a split file. Derived in notebooks/01_datasets."""

import re
from importlib import resources
from pathlib import Path

import numpy as np
import scipy.io

from alignedreid_lib.datasets.partitions import format_name, parse_name
from alignedreid_lib.datasets.pickles import load_pickle
from alignedreid_lib.errors import InputError

KINDS = ("detected", "labeled")
PERSONS = (843, 440, 77, 58, 49)  # of each camera pair, in the release
VIEW = 5  # cells of a view
LISTS = ("train_im_names", "query_im_names", "gallery_im_names")
INDICES = ("train_idx", "query_idx", "gallery_idx")  # the same lists in the protocol's own files, counted from 1

Split = dict[str, dict[str, list[str]]]  # kind -> train_im_names, query_im_names, gallery_im_names -> names


def cell_name(person: int, place: int) -> str:
    """The file name of a person's cell, 0 to 9: five of the first view, five of the second."""
    return format_name(person, place // VIEW, place % VIEW)


def new_protocol() -> Split:
    """The new protocol's split (Zhong et al., CVPR 2017), which comes with the library.

    Returns:
        {kind: {train_im_names, query_im_names, gallery_im_names}}, each list sorted; 7 365 / 1 400 / 5 332 names
        of detected, 7 368 / 1 400 / 5 328 of labeled.
    """
    text = resources.files("alignedreid_lib.datasets").joinpath("cuhk03_new_protocol.txt").read_text("ascii")
    split: Split = {kind: {key: [] for key in LISTS} for kind in KINDS}
    lists = dict(zip("tqg", LISTS, strict=True))
    for line in text.splitlines():
        if not line.startswith("#"):
            person, *columns = line.split()
            for kind, cells in zip(KINDS, columns, strict=True):
                for place, use in enumerate(cells):
                    if use in lists:
                        split[kind][lists[use]].append(cell_name(int(person), place))
    return split


def split_files(path: Path) -> list[Path]:
    """The files that a split is read from: both of the new protocol's MATLAB files, detected first, or `path`.

    Raises:
        InputError: a MATLAB file whose name does not lead to the other one.
    """
    if path.suffix.lower() != ".mat":
        return [path]
    if len(re.findall("|".join(KINDS), path.name)) != 1:
        raise InputError(
            f"{path}: its name has to contain detected or labeled, once; name the two files as the new protocol does, "
            "cuhk03_new_protocol_config_detected.mat and cuhk03_new_protocol_config_labeled.mat"
        )
    return [path.with_name(re.sub("|".join(KINDS), kind, path.name)) for kind in KINDS]


def load_split(path: Path) -> Split:
    """Read a split from a file.

    Args:
        path: a pickle of the original reproduction's form (`re_ranking_train_test_split.pkl`), or one of the new
            protocol's two MATLAB files (`cuhk03_new_protocol_config_detected.mat`); the other is in its folder.

    Raises:
        InputError: it cannot be read, or is not a split of CUHK03.
    """
    files = split_files(path)
    content = dict(zip(KINDS, map(read_mat, files), strict=True)) if len(files) > 1 else load_pickle(path)
    split: Split = {kind: {} for kind in KINDS}
    for kind in KINDS:
        for key in LISTS:
            try:
                names = split[kind][key] = list(content[kind][key])
            except (KeyError, TypeError) as error:
                raise InputError(f"{path} has no list [{kind!r}][{key!r}]; give a split file of CUHK03") from error
            for name in names:
                if not isinstance(name, str):
                    raise InputError(f"{path}: [{kind!r}][{key!r}] contains {name!r}; names are text")
                try:
                    parse_name(name)
                except InputError as error:
                    raise InputError(f"{path}: {error}; give a split file of CUHK03") from error
        every = [name for key in LISTS for name in split[kind][key]]
        if len(set(every)) != len(every):
            raise InputError(f"{path} names an image of {kind} twice; make the split again")
    return split


def read_mat(path: Path) -> dict[str, list[str]]:
    """The lists of one of the new protocol's MATLAB files, in our names.

    Its `filelist` names cells as {pair}_{person:03}_{view}_{cell:02}.png, all counted from 1; view 2 has cells 6 to 10.

    Raises:
        InputError: it is absent, cannot be read, or is not such a file.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file; the new protocol's two .mat files belong side by side")
    try:
        content = scipy.io.loadmat(path, variable_names=["filelist", *INDICES])
        names = [_unified(str(cell.item())) for cell in content["filelist"].ravel()]
        return {key: _choose(names, content[index], index) for key, index in zip(LISTS, INDICES, strict=True)}
    except Exception as error:  # a damaged file can fail in any way
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise InputError(f"{path} is not a file of CUHK03's new protocol ({reason}); download it again") from None


def _unified(name: str) -> str:
    """A cell's name in the unified layout, from its name in `filelist`."""
    pair, person, view, cell = map(int, re.findall(r"\d+", name))
    persons = PERSONS[pair - 1] if 1 <= pair <= len(PERSONS) else 0
    if not (1 <= person <= persons and view in (1, 2) and VIEW * (view - 1) < cell <= VIEW * view):
        raise ValueError(
            f"{name!r} is not a cell: pairs are 1 to {len(PERSONS)}, persons 1 to {', '.join(map(str, PERSONS))}, "
            f"cells 1 to {VIEW} of view 1 and {VIEW + 1} to {2 * VIEW} of view 2"
        )
    return cell_name(sum(PERSONS[: pair - 1]) + person - 1, cell - 1)


def _choose(names: list[str], indices: np.ndarray, what: str) -> list[str]:
    """The names at these indices, which are counted from 1; MATLAB's are often floats."""
    indices = indices.ravel()
    if not indices.size:
        raise ValueError(f"{what} is empty")
    wrong = indices[~np.isin(indices, np.arange(1, len(names) + 1))]
    if wrong.size:
        raise ValueError(f"{what} contains {wrong[0]}, not a whole number from 1 to {len(names)}")
    return [names[index - 1] for index in indices.astype(int)]
