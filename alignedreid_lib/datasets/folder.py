"""The user's own images: one folder per person, a table, or a pattern for names. Derived in notebooks/01_datasets."""

import hashlib
import json
import re
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from alignedreid_lib.datasets.jpegs import MAX_BYTES, SUFFIXES, to_jpeg
from alignedreid_lib.datasets.partitions import format_name, make_partitions, parse_name, split_person
from alignedreid_lib.datasets.prepared_folder import MANIFEST
from alignedreid_lib.datasets.sighting import Sighting, count, unify
from alignedreid_lib.datasets.tables import read_table
from alignedreid_lib.datasets.walking import walk_pictures
from alignedreid_lib.errors import InputError

# Folders into which releases and other toolboxes split a dataset. Two of them in one folder are not two people.
_PARTS = {"train", "train_all", "trainval", "val", "valid", "validation", "test", "query", "gallery", "multi-query"}
_PARTS |= {"probe", "gt_bbox", "bounding_box_train", "bounding_box_test", "detected", "labeled"}

MAX_CAMERAS = 10_000  # four digits of a name
_SAMPLE = 4096  # bytes of an image that go into its fingerprint


def list_sightings(source: Path, pattern: str | None = None) -> list[Sighting]:
    """The images of a folder or a table, sorted by name; all of them have a camera, or none has.

    Spaces around the words of a person's or camera's name do not count, see `sighting.unify`.

    Args:
        source: a folder (see `walk_pictures`), or a CSV file whose first line names the columns path, person and (or
            not) camera (see `read_table`); paths are taken from the CSV's own folder.
        pattern: for folders, a regular expression with a group `person` and (or not) a group `camera`, searched for
            in each image's path from the folder, written with `/`. Without it the person is the first folder of
            that path, and cameras are not known.

    Raises:
        InputError: nothing there, a line or a name without a person, or an image named twice.
    """
    if (source / MANIFEST).is_file():
        raise InputError(f"{source} is a prepared dataset; open it with open_dataset, or give the user's own images")
    if source.is_dir():
        found = walk_pictures(source, _by_pattern(pattern, source) if pattern is not None else _by_folder)
        if pattern is None:
            _check_folders(source, [sighting.name for sighting in found])
    elif pattern is not None:
        raise InputError(f"{source} is not a folder; a pattern is for the names in a folder")
    else:
        found = read_table(source)
    if not found:
        raise InputError(f"{source} contains no images; known are {', '.join(SUFFIXES)}")
    known = {sighting.camera is not None for sighting in found}
    if len(known) == 2:
        first = next(sighting.name for sighting in found if sighting.camera is None)
        raise InputError(f"{source}: {first} has no camera and others have; give all a camera, or none")
    return unify(found)


def digest(sightings: Sequence[Sighting]) -> str:
    """A fingerprint of what is there: names, people, cameras and sizes; pixels are not read."""
    lines = [json.dumps([s.name, s.person, s.camera, s.path.stat().st_size]) for s in sightings]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def sample_bytes(sightings: Sequence[Sighting]) -> str:
    """A fingerprint of bytes from the middle of each image: BMPs of one size are of equal length."""
    fingerprint = hashlib.sha256()
    for sighting in sightings:
        with open(sighting.path, "rb") as file:
            file.seek(max(0, (sighting.path.stat().st_size - _SAMPLE) // 2))
            fingerprint.update(file.read(_SAMPLE))
    return fingerprint.hexdigest()


def prepare_folder(
    source: Path, sightings: Sequence[Sighting], out: Path, num_val_ids: int, test_share: float, seed: int
) -> dict[str, str]:
    """Write `out/images/`, `out/partitions.pkl` and `out/people.json`.

    Args:
        source: the folder or table, for messages.
        sightings: its images, see `list_sightings`.
        out: an existing, empty folder.
        num_val_ids: people of the validation split.
        test_share: share of the people to test on, 0 to 1.
        seed: decides which people are tested on and which images become queries.

    Returns:
        {the user's name of an image: its new name}.

    Raises:
        InputError: a file that is not an image, or no test person with a query and a match.
    """
    people, cameras = (_numbers([s.person for s in sightings]), _numbers([s.camera or "" for s in sightings]))
    if len(cameras) > MAX_CAMERAS:
        raise InputError(f"{source} names {len(cameras)} cameras, the layout allows {MAX_CAMERAS}; join some")
    cameras_known = sightings[0].camera is not None
    so_far: dict[tuple[int, int], int] = defaultdict(int)
    new_names = {}
    for sighting in sightings:
        seen = people[sighting.person], cameras[sighting.camera or ""]
        new_names[sighting.name] = format_name(*seen, so_far[seen])
        so_far[seen] += 1
    train, query, gallery = _split(source, list(new_names.values()), test_share, seed, cameras_known)
    partitions = make_partitions(train, num_val_ids, query, [], gallery, cameras_known)
    (out / "images").mkdir()
    for sighting in tqdm(sightings, desc="folder", unit="img", disable=None):
        (out / "images" / new_names[sighting.name]).write_bytes(to_jpeg(_read(sighting.path), str(sighting.path)))
    names = {"people": list(people), "cameras": list(cameras) if cameras_known else None}
    (out / "people.json").write_text(json.dumps(names, indent=1, ensure_ascii=False) + "\n", "utf-8")
    partitions.save(out / "partitions.pkl")
    return new_names


def _check_folders(source: Path, names: Sequence[str]) -> None:
    """Refuse a dataset's parts as people, and warn of folders inside the people's folders."""
    folders = [name.split("/")[:-1] for name in names]
    for level in (0, 1):
        parts = sorted({path[level] for path in folders if len(path) > level and path[level].lower() in _PARTS})
        if len(parts) > 1:
            raise InputError(
                f"{source}: the folders {', '.join(parts)} are parts of a dataset, not people; give one of them, if it "
                "has a folder for each person, or a pattern that finds the person in a name"
            )
    deep = sorted(name for name, path in zip(names, folders, strict=True) if len(path) > 1)
    if deep:
        warnings.warn(
            f"{source}: {count(len(deep), 'image')} in folders inside of the people's folders (first: {deep[0]}); "
            "the first folder is taken for the person, and cameras are not known: give a pattern to change this",
            stacklevel=6,
        )


def _by_folder(name: str) -> tuple[str, str | None] | None:
    first, *inside = name.split("/")
    return (first, None) if inside else None


def _by_pattern(pattern: str, source: Path) -> Callable[[str], tuple[str, str | None] | None]:
    if not isinstance(pattern, str):
        raise InputError(f"pattern={pattern!r} is not a regular expression; give text")
    try:
        compiled = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise InputError(f"pattern {pattern!r} is not a regular expression ({error}); correct it") from error
    if "person" not in compiled.groupindex:
        raise InputError(f"pattern {pattern!r} has no group (?P<person>...); add it around the person's name")

    def read(name: str) -> tuple[str, str | None] | None:
        match = compiled.search(name)
        if match is None or not match["person"]:
            return None
        return match["person"], match.groupdict().get("camera") or None

    return read


def _numbers(names: Sequence[str]) -> dict[str, int]:
    """{name: number}, counted from 0 through the sorted names, with digits sorted by value: 2 before 10."""

    def key(name: str) -> tuple:
        parts = re.split(r"(\d+)", name)  # text, digits, text, ...
        return [(len(part.lstrip("0")), part.lstrip("0")) if i % 2 else part for i, part in enumerate(parts)], name

    return {name: number for number, name in enumerate(sorted(set(names), key=key))}


def _split(
    source: Path, names: Sequence[str], test_share: float, seed: int, cameras_known: bool
) -> tuple[list[str], list[str], list[str]]:
    """(train, query, gallery) names, sorted; a test person without a query stays in the gallery."""
    random = np.random.RandomState(seed)
    shuffled = [names[index] for index in random.permutation(len(names))]
    of_person: dict[int, list[str]] = defaultdict(list)
    for name in shuffled:
        of_person[parse_name(name)[0]].append(name)
    people = random.permutation(sorted(of_person)).tolist()
    tested = people[: round(test_share * len(people))]
    query: list[str] = []
    gallery: list[str] = []
    for person in tested:
        pictures = of_person[person]
        places = range(len(pictures))
        asked, others = split_person(places, [parse_name(name)[1] for name in pictures], cameras_known)
        query += [pictures[place] for place in asked]
        gallery += [pictures[place] for place in others]
    if tested and not query:
        wanted = "images of two cameras" if cameras_known else "two images"
        advice = "if all images are of one camera, leave the cameras out" if cameras_known else "add images"
        nobody = f"none of the {len(tested)} test people has {wanted}, so nobody can be searched for"
        raise InputError(f"{source}: {nobody}; {advice}")
    return sorted(set(names) - set(query) - set(gallery)), sorted(query), sorted(gallery)


def _read(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(MAX_BYTES + 1)
