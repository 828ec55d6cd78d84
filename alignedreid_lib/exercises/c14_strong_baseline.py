"""Chapter 14: the target of a smoothed cross entropy."""

from collections.abc import Callable

from alignedreid_lib.exercises.checking import Exercise


def _targets(own: Callable[[int, float], float], other: Callable[[int, float], float]) -> Callable[..., list[float]]:
    """A function that builds targets from the entry of the own class and that of the others, of (classes, share)."""

    def targets(label: int, classes: int, share: float) -> list[float]:
        return [own(classes, share) if k == label else other(classes, share) for k in range(classes)]

    return targets


EXERCISE = Exercise(
    right=_targets(lambda n, e: 1 - e + e / n, lambda n, e: e / n),
    cases={
        "the first of four classes and a share of 0.1": (0, 4, 0.1),
        "the last of five classes and a share of 0.3": (4, 5, 0.3),
        "751 classes": (700, 751, 0.1),
        "two classes and a share of 0.5": (1, 2, 0.5),
        "a share of 0": (2, 3, 0.0),
    },
    mistakes={
        "The share is divided among all classes, the right one included, which gets 1 - share plus its part.": _targets(
            lambda n, e: 1 - e, lambda n, e: e / n
        ),
        "You give the share to the other classes alone: divide it by the number of all classes.": _targets(
            lambda n, e: 1 - e, lambda n, e: e / (n - 1)
        ),
        "Your targets add up to more than 1: what the others get, the own class has to give.": _targets(
            lambda n, e: 1.0, lambda n, e: e / n
        ),
        "Every class gets the whole share: divide it by the number of classes.": _targets(
            lambda n, e: 1 - e, lambda n, e: e
        ),
        "You have exchanged the two: the label's class gets the large target.": _targets(
            lambda n, e: e / n, lambda n, e: 1 - e + e / n
        ),
        "Your labels count from 1: the first class has the number 0.": lambda label, classes, share: [
            1 - share + share / classes if k + 1 == label else share / classes for k in range(classes)
        ],
        "Your targets are not smoothed: every class gets its part of the share.": _targets(
            lambda n, e: 1.0, lambda n, e: 0.0
        ),
    },
    notice="The best logits are now a finite distance apart, ln of the ratio of both targets.",
)
