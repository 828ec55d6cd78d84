"""Chapter 12: the threshold for "nobody"."""

from collections.abc import Callable

from alignedreid_lib.exercises.checking import Exercise


def _chooser(
    share: Callable[[float, list[float], list[float]], float] = lambda t, same, different: _up_to(t, different),
    choose: Callable[[list[float]], float] = max,
    among: Callable[[list[float], list[float]], list[float]] = lambda same, different: same + different,
) -> Callable[..., float | None]:
    """A function that chooses: which share is limited, which of the allowed thresholds, among which distances."""

    def threshold(same: list[float], different: list[float], rate: float) -> float | None:
        allowed = [t for t in among(same, different) if share(t, same, different) <= rate]
        return choose(allowed) if allowed else None

    return threshold


def _up_to(t: float, distances: list[float]) -> float:
    return sum(d <= t for d in distances) / len(distances)


EXERCISE = Exercise(
    right=_chooser(),
    cases={
        "the example of chapter 8": ([1, 2, 4], [3, 5, 6, 7], 0.25),
        "the same pairs and a rate of 0": ([1, 2, 4], [3, 5, 6, 7], 0.0),
        "pairs that overlap, and a rate of one half": ([1, 2, 6, 8, 9], [3, 4, 5, 7, 10, 11], 0.5),
        "pairs that overlap, and a rate of a third": ([1, 2, 6, 8, 9], [3, 4, 5, 7, 10, 11], 1 / 3),
        "a pair of each kind at the same distance, and a rate of 0": ([1, 3], [3, 5], 0.0),
        "a stranger nearer than everybody, and a rate of 0": ([2, 4], [1, 5], 0.0),
    },
    mistakes={
        "You limit the share of right pairs that pass: the rate is a limit for pairs of two people.": _chooser(
            lambda t, same, different: _up_to(t, same)
        ),
        "You limit the share of right pairs that are rejected: the rate is a limit for wrong pairs that "
        "pass.": _chooser(lambda t, same, different: 1 - _up_to(t, same)),
        "You divide by the number of all pairs: the false-accept rate is a share of the pairs of two people.": _chooser(
            lambda t, same, different: sum(d <= t for d in different) / len(same + different)
        ),
        "You divide by the number of pairs that pass: the false-accept rate is a share of the pairs of two "
        "people.": _chooser(
            lambda t, same, different: sum(d <= t for d in different) / sum(d <= t for d in same + different)
        ),
        "A pair at the threshold passes too: count d <= t instead of d < t.": _chooser(
            lambda t, same, different: sum(d < t for d in different) / len(different)
        ),
        "Your thresholds are distances of wrong pairs: a right pair may be between two of them, so try all "
        "distances.": _chooser(among=lambda same, different: different),
        "You take the smallest threshold that keeps the rate: the largest one accepts more right pairs.": _chooser(
            choose=min
        ),
        "A share of exactly the rate is allowed: compare with <= instead of <.": _chooser(
            lambda t, same, different: _up_to(t, different) + 1e-9
        ),
        "Your thresholds are distances of right pairs: the largest allowed one may be that of a wrong pair, so try all "
        "distances.": _chooser(among=lambda same, different: same),
    },
    notice="The right pairs do not influence the rate: they show what the threshold costs.",
)
