"""From a release archive to the unified layout, all or nothing.

Work is done in a hidden folder beside the target, which is renamed at the end; `prepared.json` in it says what was
made from what. Derived in notebooks/01_datasets.
"""

import errno
import json
import shutil
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tqdm import tqdm

from alignedreid_lib.datasets.archives import free_space
from alignedreid_lib.datasets.cuhk03 import prepare_cuhk03
from alignedreid_lib.datasets.market1501 import prepare_folders
from alignedreid_lib.datasets.partitions import Partitions, format_name, make_labels, parse_name
from alignedreid_lib.errors import InputError

SOURCES = {  # name -> (archive, where to get it)
    "market1501": (
        "Market-1501-v15.09.15.zip",
        "its official page, https://zheng-lab.cecs.anu.edu.au/Project/project_reid.html, says how to get it",
    ),
    "cuhk03": (
        "cuhk03_release.zip",
        "its official page, https://www.ee.cuhk.edu.hk/~xgwang/CUHK_identification.html, says how to ask for it",
    ),
    "dukemtmc": ("DukeMTMC-reID.zip", "it was withdrawn by its makers in 2019, so only who has it already can use it"),
}
_MANIFEST = "prepared.json"


def prepare(
    name: str,
    archive: str | Path,
    root: str | Path,
    split_file: str | Path | None = None,
    num_val_ids: int = 100,
) -> Path:
    """Turn a release archive into the unified layout; asked again, find the work done.

    Args:
        name: market1501, cuhk03 or dukemtmc.
        archive: the zip as its authors publish it; it is never unpacked as a whole.
        root: where the dataset's folder goes.
        split_file: CUHK03 only: a split pickle instead of the new protocol's, which comes with the library.
        num_val_ids: identities set aside for validation; 0 for none, then train equals trainval.

    Returns:
        root/name, with `images/` and `partitions.pkl`; for cuhk03 the folders detected/ and labeled/ with these,
        and all/ with images only.

    Raises:
        InputError: anything that is wrong with the input or the disk; nothing is left behind then.
    """
    if name not in SOURCES:
        raise InputError(f"no dataset {name!r}; give one of {', '.join(SOURCES)}")
    if split_file is not None and name != "cuhk03":
        raise InputError(f"{name} has its split in its archive; leave split_file out")
    if type(num_val_ids) is not int or num_val_ids < 0:
        raise InputError(f"num_val_ids={num_val_ids!r} is not a count; give 0 or more")
    archive, root, split_path = Path(archive), Path(root), Path(split_file) if split_file is not None else None
    settings = {
        "name": name,
        "archive": archive.name,
        "split_file": split_path.name if split_path else None,
        "num_val_ids": num_val_ids,
    }
    target = root / name
    if _is_done(target, settings):
        return target
    if not archive.is_file():
        file, source = SOURCES[name]
        raise InputError(f"{archive} does not exist; put {file} there: {source}")
    with _all_or_nothing(target, archive) as partial:
        if name == "cuhk03":
            prepare_cuhk03(archive, partial, num_val_ids, split_path)
        else:
            prepare_folders(name, archive, partial, num_val_ids)
        (partial / _MANIFEST).write_text(json.dumps(settings, indent=1) + "\n")
    return target


def combine(folders: Sequence[str | Path], root: str | Path) -> Path:
    """One training set out of several datasets' trainval sets, ids renumbered from 0 on through them.

    Args:
        folders: prepared datasets, in the order in which their ids are counted.
        root: where the folder `combined` goes.

    Returns:
        root/combined, with `images/` and a `partitions.pkl` that has the trainval part only.

    Raises:
        InputError: a folder is no prepared dataset, or the disk is full; nothing is left behind then.
    """
    if not folders:
        raise InputError("nothing to combine; give the folders of prepared datasets")
    target = Path(root) / "combined"
    settings = {"name": "combined", "of": [str(Path(folder)) for folder in folders]}
    if _is_done(target, settings):
        return target
    copies = []
    next_id = 0
    for folder in map(Path, folders):
        names = sorted(Partitions.load(folder / "partitions.pkl").trainval_im_names or ())
        if not names:
            raise InputError(f"{folder} has no trainval part; leave it out")
        count: dict[tuple[int, int], int] = defaultdict(int)
        new_ids = {person: next_id + label for person, label in make_labels(names).items()}
        next_id += len(new_ids)
        for name in names:
            person, camera = parse_name(name)
            copies.append((folder / "images" / name, format_name(new_ids[person], camera, count[person, camera])))
            count[person, camera] += 1
    with _all_or_nothing(target, Path(folders[0])) as partial:
        (partial / "images").mkdir()
        for source, new_name in tqdm(copies, desc="combined", unit="img", disable=None):
            shutil.copyfile(source, partial / "images" / new_name)
        new_names = [new_name for _, new_name in copies]
        Partitions(trainval_im_names=new_names, trainval_ids2labels=make_labels(new_names)).save(
            partial / "partitions.pkl"
        )
        (partial / _MANIFEST).write_text(json.dumps(settings, indent=1) + "\n")
    return target


def _is_done(target: Path, settings: dict) -> bool:
    """Whether `target` was made with these settings.

    Raises:
        InputError: it is there, but was made otherwise or by someone else.
    """
    if not target.exists():
        return False
    try:
        made = json.loads((target / _MANIFEST).read_text())
    except (OSError, ValueError) as error:
        raise InputError(
            f"{target} exists and was not made by prepare; open it with open_dataset, or move it away"
        ) from error
    for key, value in settings.items():
        if made.get(key) != value:
            raise InputError(
                f"{target} was made with {key}={made.get(key)!r}, not {value!r}; delete it, or give another root"
            )
    return True


@contextmanager
def _all_or_nothing(target: Path, source: Path) -> Iterator[Path]:
    """A new, empty folder beside `target`, renamed to it if all goes well, deleted if not."""
    partial = target.with_name(f".{target.name}.partial")
    new_parents = [parent for parent in target.parents if not parent.exists()]
    try:
        try:
            if partial.exists():
                shutil.rmtree(partial)  # of a call that was killed
            partial.mkdir(parents=True)
            yield partial
            partial.rename(target)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            with suppress(OSError):
                for parent in new_parents:
                    parent.rmdir()
            raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            size = source.stat().st_size if source.is_file() else 0
            room = next(parent for parent in target.parents if parent.exists())
            raise InputError(
                f"no space left for {target} ({free_space(room)} free, {source} has {size / 1e9:.1f} GB); "
                "make room or give another root"
            ) from error
        raise InputError(
            f"{target} cannot be made ({error.filename or target}: {error.strerror or error}); "
            "give a root you may write to and an archive you may read"
        ) from error
