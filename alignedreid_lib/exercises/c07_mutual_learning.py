"""Chapter 07: the direction of the Kullback-Leibler divergence."""

import math

from alignedreid_lib.exercises.checking import Exercise


def _right(ours: list[float], partner: list[float]) -> float:
    return sum(q * math.log(q / p) for p, q in zip(ours, partner, strict=True) if q > 0)


EXERCISE = Exercise(
    right=_right,
    cases={
        "a fair coin of ours and a partner's of 9 to 1": ([0.5, 0.5], [0.9, 0.1]),
        "three people, ours (0.2, 0.3, 0.5), the partner's (0.6, 0.3, 0.1)": ([0.2, 0.3, 0.5], [0.6, 0.3, 0.1]),
        "the coins exchanged": ([0.9, 0.1], [0.5, 0.5]),
        "equal probabilities": ([0.25, 0.75], [0.25, 0.75]),
        "a partner who excludes a person": ([1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 0.0]),
    },
    mistakes={
        "You compute D(p || q): the partner's q is the constant that we learn from, so q weights the logarithms and "
        "is the numerator in them.": lambda ours, partner: _right(partner, ours),
        "You add the logarithms without weights: multiply each by the partner's probability.": lambda ours, partner: (
            sum(math.log(q / p) for p, q in zip(ours, partner, strict=True) if q > 0)
        ),
        "Your value for equal probabilities is not 0: this is the cross-entropy, from which the partner's own entropy "
        "has to be subtracted.": lambda ours, partner: (
            -sum(q * math.log(p) for p, q in zip(ours, partner, strict=True))
        ),
        "You take the mean over the people: the divergence is the sum over all of them.": lambda ours, partner: (
            _right(ours, partner) / len(ours)
        ),
        "Your divergence is negative: the partner's probability is the numerator.": lambda ours, partner: (
            -_right(ours, partner)
        ),
        "Your logarithm has base 2: the chapter uses the natural one.": lambda ours, partner: (
            _right(ours, partner) / math.log(2)
        ),
        "You weight the logarithms with our probabilities: weight them with the partner's.": lambda ours, partner: sum(
            p * math.log(q / p) for p, q in zip(ours, partner, strict=True) if q > 0
        ),
        "You take squared differences: that is the term of the distances.": lambda ours, partner: sum(
            (p - q) ** 2 for p, q in zip(ours, partner, strict=True)
        ),
        "You take the mean of both directions: we learn from the partner, so only D(q || p) "
        "counts.": lambda ours, partner: (
            (_right(ours, partner) + sum(p * math.log(p / q) for p, q in zip(ours, partner, strict=True) if q > 0)) / 2
        ),
    },
    notice="People excluded by the partner cost nothing; people excluded by us and not by the partner cost most.",
)
