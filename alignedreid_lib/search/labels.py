"""Names and labels of the images of an index: checked, numbered, joined. Explained in notebooks/12."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import torch

from alignedreid_lib.errors import InputError
from alignedreid_lib.evaluation.features import Features

Label = int | str


def numbers(labels: Sequence[Label] | None, count: int, unknown: int) -> np.ndarray:
    """A number for each label, in the order of the sorted labels, int64 [N]; `unknown` everywhere without labels."""
    if labels is None:
        return np.full(count, unknown)
    order = {label: k for k, label in enumerate(sorted(set(labels), key=lambda label: (isinstance(label, str), label)))}
    return np.array([order[label] for label in labels], np.int64)


def listed(what: str, given: Iterable[Label] | None, features: Features) -> list[Label] | None:
    """Labels as Python's numbers and texts.

    Raises:
        InputError: not one per image, or something else; `what` names them.
    """
    if given is None:
        return None
    values = given.tolist() if isinstance(given, np.ndarray | torch.Tensor) else list(given)
    values = [value.item() if isinstance(value, np.generic) else value for value in values]
    if isinstance(given, str) or len(values) != len(features):
        raise InputError(f"{len(values)} {what} for {len(features)} images; give one for each image, in their order")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise InputError(f"{what} contain {value!r}; give whole numbers or texts")
    return values


def named(features: Features, names: Sequence[str] | None, there: Sequence[str]) -> Features:
    """The features with the given names (None: their own).

    Raises:
        InputError: not one per image, or a name twice or among those that are `there`.
    """
    found = features.names if names is None else [str(name) for name in names]
    if len(found) != len(features):
        raise InputError(f"{len(found)} names for {len(features)} images; give one for each image, in their order")
    twice = [name for name, count in Counter([*there, *found]).items() if count > 1]
    if twice:
        raise InputError(f"{twice[0]!r} is in the index twice; leave one out, remove it first, or give other names")
    return dataclasses.replace(features, names=list(found))


def joined(one: Features, two: Features) -> Features:
    """The features of two collections as those of one, without identities and cameras."""
    global_features = torch.cat([one.global_features, two.global_features])
    local_features = torch.cat([one.local_features, two.local_features])
    unknown = np.full(len(one) + len(two), -1)
    return Features(global_features, local_features, unknown, unknown, unknown, one.names + two.names)
