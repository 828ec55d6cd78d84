"""Chapter 10: what an interval of a difference shows."""

from collections.abc import Callable

from alignedreid_lib.exercises.checking import Exercise

NOTHING, NETWORKS, METHOD = "nothing", "these networks differ", "the methods differ"


def _reader(
    apart: Callable[[float, float], bool] = lambda low, high: low > 0 or high < 0,
    queries: str = NETWORKS,
    seeds: str = METHOD,
) -> Callable[[float, float, str], str]:
    """A function that reads an interval: when it shows a difference, and of what."""

    def read(low: float, high: float, over: str) -> str:
        if not apart(low, high):
            return NOTHING
        return queries if over == "queries" else seeds

    return read


EXERCISE = Exercise(
    right=_reader(),
    cases={
        "0.3 to 3.0 points over queries": (0.3, 3.0, "queries"),
        "-4.8 to 8.6 points over seeds": (-4.8, 8.6, "seeds"),
        "4.7 to 7.5 points over seeds": (4.7, 7.5, "seeds"),
        "-7.0 to -2.0 points over queries": (-7.0, -2.0, "queries"),
        "-3.0 to -1.0 points over seeds": (-3.0, -1.0, "seeds"),
        "0.0 to 2.0 points over seeds, where the end is 0": (0.0, 2.0, "seeds"),
    },
    mistakes={
        "An interval over queries compares two trained networks: a claim about the methods needs an interval over "
        "seeds.": _reader(queries=METHOD),
        "An interval over seeds covers the luck of the training, so it does allow a claim about the methods.": _reader(
            seeds=NETWORKS
        ),
        "You look at the middle of the interval: it shows a difference only if 0 is outside.": _reader(
            lambda low, high: low + high != 0
        ),
        "An interval that is entirely below 0 shows a difference too: the first side is better.": _reader(
            lambda low, high: low > 0
        ),
        "You look at the upper end: if the lower end is below 0, a difference of 0 is still possible.": _reader(
            lambda low, high: high > 0
        ),
        "An interval whose end is 0 does not exclude 0: compare with < and >.": _reader(
            lambda low, high: low >= 0 or high <= 0
        ),
        "You have exchanged the two: an interval over queries compares networks, an interval over seeds compares "
        "methods.": _reader(queries=METHOD, seeds=NETWORKS),
    },
    notice="An interval with 0 in it does not show that two methods are equal: it shows that we cannot tell.",
)
