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


def load_split(path: Path) -> Split:
    """Read a split from a file.

    Args:
        path: a pickle of the original reproduction's form (`re_ranking_train_test_split.pkl`), or one of the new
            protocol's two MATLAB files (`cuhk03_new_protocol_config_detected.mat`); the other is in its folder.

    Raises:
        InputError: it cannot be read, or is not a split of CUHK03.
    """
    if path.suffix == ".mat":
        content = {kind: read_mat(path.with_name(re.sub("detected|labeled", kind, path.name))) for kind in KINDS}
    else:
        content = load_pickle(path)
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
        cells = [tuple(map(int, re.findall(r"\d+", str(cell.item())))) for cell in content["filelist"].ravel()]
        firsts = np.cumsum((0, *PERSONS))
        names = [cell_name(int(firsts[pair - 1]) + person - 1, cell - 1) for pair, person, _, cell in cells]
        indices = [content[key].ravel().astype(int) - 1 for key in INDICES]
        if min(chosen.min() for chosen in indices) < 0:
            raise IndexError("an index is counted from 0")
        return {key: [names[i] for i in chosen] for key, chosen in zip(LISTS, indices, strict=True)}
    except Exception as error:  # a damaged file can fail in any way
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise InputError(f"{path} is not a file of CUHK03's new protocol ({reason}); download it again") from None
