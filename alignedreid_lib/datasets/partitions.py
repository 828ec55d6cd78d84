"""Which image belongs to which part: names, partitions, the validation split. Derived in notebooks/01_datasets."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from alignedreid_lib.datasets.pickles import load_pickle, save_pickle
from alignedreid_lib.errors import InputError

QUERY, GALLERY, MULTI_QUERY = 0, 1, 2  # marks

AGAIN = "restore it, or delete its dataset and prepare it again"

_NAME = re.compile(r"(\d{8})_(\d{4})_(\d{8})\.jpg")


def format_name(person: int, camera: int, k: int) -> str:
    """An image's name in the unified layout, `{id:08d}_{camera:04d}_{k:08d}.jpg`."""
    return f"{person:08d}_{camera:04d}_{k:08d}.jpg"


def parse_name(name: str) -> tuple[int, int]:
    """(id, camera) of a unified name.

    Raises:
        InputError: the name is not one of the unified layout.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise InputError(f"{name!r} is not a name of the unified layout (00000001_0001_00000000.jpg)")
    return int(match[1]), int(match[2])


def make_labels(names: Iterable[str]) -> dict[int, int]:
    """{id: label}: labels count from 0 through the sorted ids."""
    return {person: label for label, person in enumerate(sorted({parse_name(name)[0] for name in names}))}


class TooFewPeopleError(InputError):
    """A training set has too few people for the validation split."""


@dataclass(frozen=True)
class Partitions:
    """The content of `partitions.pkl`; None for a part that the dataset does not have.

    Names are file names inside `images/`; a mark is 0 query, 1 gallery, 2 multi-query; `ids2labels` maps an
    identity to its label, the row of the classifier.
    """

    trainval_im_names: list[str] | None = None
    trainval_ids2labels: dict[int, int] | None = None
    train_im_names: list[str] | None = None
    train_ids2labels: dict[int, int] | None = None
    val_im_names: list[str] | None = None
    val_marks: list[int] | None = None
    test_im_names: list[str] | None = None
    test_marks: list[int] | None = None

    def __post_init__(self) -> None:
        for part in ("trainval", "train"):
            names, labels = self.names(part), getattr(self, f"{part}_ids2labels")
            if (names is None) != (labels is None):
                raise InputError(f"{part}_im_names and {part}_ids2labels go together, and one is missing")
            if any(label < 0 for label in (labels or {}).values()):
                raise InputError(f"{part}_ids2labels contains a label below 0")
            missing = {parse_name(name)[0] for name in names or ()} - set(labels or ())
            if missing:
                raise InputError(f"{part}_ids2labels has no label for id {min(missing)}")
        for part in ("val", "test"):
            names, marks = self.names(part), getattr(self, f"{part}_marks")
            if (names is None) != (marks is None) or len(names or ()) != len(marks or ()):
                raise InputError(f"{part}_im_names and {part}_marks are not of one length")
            if not set(marks or ()) <= {QUERY, GALLERY, MULTI_QUERY}:
                raise InputError(f"{part}_marks contains a mark that is not 0, 1 or 2")
            for name in names or ():
                parse_name(name)

    def names(self, part: str) -> list[str] | None:
        """The names of a part (trainval, train, val or test), None where the dataset lacks it."""
        return getattr(self, f"{part}_im_names")

    @classmethod
    def load(cls, path: str | Path) -> "Partitions":
        """Read a `partitions.pkl`, this library's or the original reproduction's (Python 2).

        Raises:
            InputError: no such file, not a pickle, a pickle that refers to a class, or not partitions.
        """
        content = load_pickle(path)
        known = {field.name for field in fields(cls)}
        if not isinstance(content, dict) or not known & set(content):
            raise InputError(f"{path} contains no partitions; give a partitions.pkl of a prepared dataset")
        values: dict[str, Any] = {key: content[key] for key in content if key in known}
        for key, value in values.items():
            kind = dict if key.endswith("ids2labels") else list
            inside = str if key.endswith("im_names") else int
            items = [*value, *value.values()] if isinstance(value, dict) else value
            if type(value) is not kind or any(type(item) is not inside for item in items):
                raise InputError(f"{path}: {key} is not a {kind.__name__} of {inside.__name__}; {AGAIN}")
        try:
            return cls(**values)
        except InputError as error:
            raise InputError(f"{path}: {error}; {AGAIN}") from error

    def save(self, path: str | Path) -> None:
        """Write a protocol 2 pickle of plain dict, list, int and str, see `save_pickle`."""
        save_pickle({f.name: value for f in fields(self) if (value := getattr(self, f.name)) is not None}, path)


def split_validation(
    names: Sequence[str], num_ids: int, seed: int = 1, cameras_known: bool = True
) -> tuple[list[str], list[str], list[str]]:
    """Set some identities of a training set aside: (train, query, gallery) names, each in shuffled order.

    The rule of the original reproduction, image for image. The first image that each camera has of a chosen
    identity is a query and the others are gallery; a query without a gallery image from a different camera becomes
    gallery; an identity left without a query stays in train.

    Args:
        names: unified names of the training set; their order matters.
        num_ids: identities to set aside; 0 for none.
        seed: of numpy's RandomState.
        cameras_known: if not, the first image of an identity is its only query.

    Raises:
        TooFewPeopleError: fewer identities can be set aside than `num_ids`, or none would be left to train on.
    """
    persons_cameras = [parse_name(name) for name in names]
    num_persons = len({person for person, _ in persons_cameras})
    if num_ids and num_ids >= num_persons:
        raise TooFewPeopleError(
            f"num_val_ids={num_ids} leaves nobody to train on: the set has {num_persons} ids; set it lower"
        )
    random = np.random.RandomState(seed)
    order = np.arange(len(names))
    random.shuffle(order)
    places: dict[int, list[int]] = {}  # id -> places in the shuffled list, ascending
    for place, index in enumerate(order.tolist()):
        places.setdefault(persons_cameras[index][0], []).append(place)
    camera = [persons_cameras[index][1] for index in order.tolist()]
    persons = np.array(sorted(places), dtype=np.int64)
    random.shuffle(persons)

    queries: set[int] = set()
    galleries: set[int] = set()
    chosen = 0
    for person in persons.tolist():
        if chosen == num_ids:
            break
        query, gallery = split_person(places[person], camera, cameras_known)
        if query:
            queries.update(query)
            galleries.update(gallery)
            chosen += 1
    if chosen < num_ids:
        wanted = "images of two cameras" if cameras_known else "two images"
        raise TooFewPeopleError(
            f"num_val_ids={num_ids}, but only {chosen} ids have {wanted} and can be queries; set it lower"
        )
    shuffled = [names[index] for index in order.tolist()]
    return (
        [name for place, name in enumerate(shuffled) if place not in queries and place not in galleries],
        [shuffled[place] for place in sorted(queries)],
        [shuffled[place] for place in sorted(galleries)],
    )


def split_person(
    places: Sequence[int], camera: Sequence[int], cameras_known: bool = True
) -> tuple[list[int], list[int]]:
    """(query, gallery) places of one identity's images.

    Args:
        places: where the identity's images are in a list, in the order that decides.
        camera: that of every image in the list.
        cameras_known: if not, the first image is the query.
    """
    if not cameras_known:
        return (list(places[:1]), list(places[1:])) if len(places) > 1 else ([], list(places))
    first: dict[int, int] = {}
    for place in places:
        first.setdefault(camera[place], place)
    query = [first[seen] for seen in sorted(first)]
    gallery = [place for place in places if place not in query]
    for place in query:
        if all(camera[other] == camera[place] for other in gallery):
            query.remove(place)
            gallery.append(place)
            break  # at most one moves: all other queries' cameras differ from its, so it is their match
    return query, gallery


def make_partitions(
    trainval: Sequence[str],
    num_val_ids: int,
    query: Sequence[str],
    multi_query: Sequence[str],
    gallery: Sequence[str],
    cameras_known: bool = True,
) -> Partitions:
    """Partitions of a dataset from the names of its training and its test lists.

    Raises:
        InputError: `num_val_ids` is larger than the set allows.
    """
    train, val_query, val_gallery = split_validation(trainval, num_val_ids, cameras_known=cameras_known)
    return Partitions(
        trainval_im_names=list(trainval),
        trainval_ids2labels=make_labels(trainval),
        train_im_names=train if num_val_ids else list(trainval),
        train_ids2labels=make_labels(train),
        val_im_names=val_query + val_gallery,
        val_marks=[QUERY] * len(val_query) + [GALLERY] * len(val_gallery),
        test_im_names=[*query, *multi_query, *gallery],
        test_marks=[QUERY] * len(query) + [MULTI_QUERY] * len(multi_query) + [GALLERY] * len(gallery),
    )
