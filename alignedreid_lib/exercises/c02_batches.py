"""Chapter 02: batches of P identities with K images each."""

from collections.abc import Callable

from alignedreid_lib.exercises.checking import Exercise


def _plan(
    fill: Callable[[list[int], int], list[int]], last: bool = False, few: bool = True, sort: bool = False
) -> Callable[..., list[list[int]]]:
    """A function that makes batches: how K images of a person are taken, which people take part, in which order."""

    def batches(labels: list[int], P: int, K: int) -> list[list[int]]:
        own: dict[int, list[int]] = {}
        for image, person in enumerate(labels):
            own.setdefault(person, []).append(image)
        people = [person for person in (sorted(own) if sort else own) if few or len(own[person]) >= K]
        stop = len(people) if last else len(people) - P + 1
        groups = [people[start : start + P] for start in range(0, stop, P)]
        return [[image for person in group for image in fill(own[person], K)] for group in groups]

    return batches


def _repeat(own: list[int], K: int) -> list[int]:
    return [own[k % len(own)] for k in range(K)]


def _slices(labels: list[int], P: int, K: int) -> list[list[int]]:
    return [list(range(start, start + P * K)) for start in range(0, len(labels) - P * K + 1, P * K)]


EXERCISE = Exercise(
    right=_plan(_repeat),
    cases={
        "three people with two images each, P = 2, K = 2": ([0, 0, 1, 1, 2, 2], 2, 2),
        "people with 3, 2, 4 and 1 images, P = 2, K = 3": ([0, 0, 0, 1, 1, 2, 2, 2, 2, 3], 2, 3),
        "the images of four people in mixed order, P = 2, K = 2": ([7, 6, 7, 5, 6, 5, 8, 8], 2, 2),
        "people with 2 and 4 images, P = 2, K = 4": ([0, 0, 1, 1, 1, 1], 2, 4),
        "fewer people than P": ([0, 0, 1, 1], 3, 2),
        "no image": ([], 2, 2),
    },
    mistakes={
        "A person with fewer than K images gives a group that is too small: repeat this person's images until there "
        "are K.": _plan(lambda own, K: own[:K]),
        "Your last batch has fewer than P people: leave it out.": _plan(_repeat, last=True),
        "You skip people with fewer than K images: they take part, and their images are repeated.": _plan(
            _repeat, few=False
        ),
        "You fill up with one image again and again: use every image of the person before one is repeated.": _plan(
            lambda own, K: own[:K] + own[:1] * (K - len(own))
        ),
        "Your batches are slices of the list, so an image may have no positive: choose P people first, then K images "
        "of each.": _slices,
        "P and K are exchanged: a batch has P people with K images each.": lambda labels, P, K: _plan(_repeat)(
            labels, K, P
        ),
        "Your people are sorted by their numbers: take them in the order of their first image.": _plan(
            _repeat, sort=True
        ),
        "You repeat the last image: begin again with the person's first image.": _plan(
            lambda own, K: own[:K] + own[-1:] * (K - len(own))
        ),
        "Your batches contain people: a batch is a list of image numbers.": lambda labels, P, K: [
            [labels[image] for image in batch] for batch in _plan(_repeat)(labels, P, K)
        ],
        "Your batches are lists of groups: a batch is one list of the images of its people.": lambda labels, P, K: [
            [batch[start : start + K] for start in range(0, P * K, K)] for batch in _plan(_repeat)(labels, P, K)
        ],
    },
    notice="Every anchor now has K - 1 positives, and nobody comes twice in an epoch.",
)
