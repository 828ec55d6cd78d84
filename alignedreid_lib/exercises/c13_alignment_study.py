"""Chapter 13: what comes from the stripes, and what from their alignment."""

from collections.abc import Callable

from alignedreid_lib.exercises.checking import Exercise

Scores = list[float]


def _mean(one: Scores, floor: Scores) -> float:
    return sum(a - b for a, b in zip(one, floor, strict=True)) / len(one)


def _right(whole: Scores, rigid: Scores, aligned: Scores) -> tuple[float, float]:
    return _mean(rigid, whole), _mean(aligned, rigid)


def _of_best(whole: Scores, rigid: Scores, aligned: Scores) -> tuple[float, float]:
    return max(rigid) - max(whole), max(aligned) - max(rigid)


def _swapped(answer: Callable[..., tuple[float, float]]) -> Callable[..., tuple[float, float]]:
    return lambda *scores: answer(*scores)[::-1]


EXERCISE = Exercise(
    right=_right,
    cases={
        "boxes that fit": ([83.0, 84.5, 82.0], [86.0, 86.5, 86.0], [86.5, 85.5, 85.0]),
        "boxes that do not fit": ([60.0, 63.0, 61.5], [34.0, 36.0, 33.5], [65.0, 66.5, 65.0]),
        "one seed": ([70.0], [44.0], [73.5]),
    },
    mistakes={
        "Your gain of alignment contains the gain of the stripes: compare aligned with rigid stripes, which differ in "
        "nothing else.": lambda whole, rigid, aligned: (_mean(rigid, whole), _mean(aligned, whole)),
        "Your gain of the stripes contains the gain of alignment: compare rigid stripes with the global "
        "feature.": lambda whole, rigid, aligned: (_mean(aligned, whole), _mean(aligned, rigid)),
        "Your signs are reversed: a gain is the new score minus the old one.": lambda whole, rigid, aligned: (
            _mean(whole, rigid),
            _mean(rigid, aligned),
        ),
        "You compare the best seeds: take the mean over all seeds, or luck decides.": _of_best,
        "You return the two gains in the wrong order: stripes first, then alignment.": _swapped(_right),
        "You add the gains over the seeds: divide by their number.": lambda whole, rigid, aligned: (
            sum(rigid) - sum(whole),
            sum(aligned) - sum(rigid),
        ),
        "You return the gains of every seed: return their two means.": lambda whole, rigid, aligned: (
            [_mean([r], [w]) for w, r in zip(whole, rigid, strict=True)],
            [_mean([a], [r]) for r, a in zip(rigid, aligned, strict=True)],
        ),
        "You use the first seed: take the mean over all seeds.": lambda *scores: _right(*(one[:1] for one in scores)),
        "You return one number, the gain of both together: return the gain of the stripes and that of their "
        "alignment.": lambda whole, rigid, aligned: _mean(aligned, whole),
    },
    notice="The two gains add up to aligned over global, in which stripes that lose hide alignment that gains.",
)
