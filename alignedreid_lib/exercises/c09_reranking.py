"""Chapter 09: k-reciprocal neighbours."""

from collections.abc import Callable

from alignedreid_lib.exercises.checking import Exercise

Lists = list[list[int]]


def _finder(join: Callable[..., bool], itself: bool = True, more: int = 0) -> Callable[..., set[int]]:
    """A function that finds neighbours: how the two directions are joined, whether i belongs to its own set."""

    def find(neighbours: Lists, i: int, k: int) -> set[int]:
        k += more
        others = [j for j in range(len(neighbours)) if j != i]
        found = {j for j in others if join(j in neighbours[i][:k], i in neighbours[j][:k])}
        return found | {i} if itself else found

    return find


def _both(ours: bool, theirs: bool) -> bool:
    return ours and theirs


# Images 0 and 1 are near each other, 2 to 4 are a group, and 5 is far from all.
LISTS = [
    [1, 2, 3, 4, 5],
    [0, 2, 3, 4, 5],
    [3, 4, 0, 1, 5],
    [2, 4, 0, 1, 5],
    [3, 2, 1, 0, 5],
    [4, 3, 2, 0, 1],
]

EXERCISE = Exercise(
    right=_finder(_both),
    cases={
        "image 0 and k = 2": (LISTS, 0, 2),
        "image 2 and k = 2": (LISTS, 2, 2),
        "image 2 and k = 3": (LISTS, 2, 3),
        "image 5, which is nobody's neighbour, and k = 3": (LISTS, 5, 3),
        "image 3 and k = 1": (LISTS, 3, 1),
        "k = 0": (LISTS, 1, 0),
        "a single image": ([[]], 0, 1),
    },
    mistakes={
        "You look in one direction: j is among the k nearest of i, but i also has to be among the k nearest of "
        "j.": _finder(lambda ours, theirs: ours),
        "You look in the other direction: i is among the k nearest of j, but j also has to be among the k nearest of "
        "i.": _finder(lambda ours, theirs: theirs),
        "You take images of either direction: a reciprocal neighbour needs both.": _finder(
            lambda ours, theirs: ours or theirs
        ),
        "Image i is missing: it belongs to its own set, which matters when sets are compared.": _finder(
            _both, itself=False
        ),
        "You look at one neighbour too few: the lists do not contain the image itself, so take the first k.": _finder(
            _both, more=-1
        ),
        "You look at k + 1 neighbours: the lists do not contain the image itself, so take the first k.": _finder(
            _both, more=1
        ),
    },
    notice="An image that is nobody's neighbour is alone in its set, however near its own neighbours are.",
)
