"""Chapter 08: the average precision of a list with ignored images."""

import math
from collections.abc import Callable, Sequence

from alignedreid_lib.exercises.checking import Exercise

NAN = math.nan


def _scorer(
    ignored: Callable[[str], bool] = lambda role: role == "ignored",
    match: Callable[[str], bool] = lambda role: role == "match",
    precision: Callable[[int, int], float] = lambda j, r: j / r,
    mean: Callable[[Sequence[float], int], float] = lambda terms, length: sum(terms) / len(terms),
    empty: float = NAN,
) -> Callable[[list[str]], float]:
    """A function that scores a list of roles: which count, the term of match j at rank r, the mean of the terms."""

    def score(roles: list[str]) -> float:
        kept = [role for role in roles if not ignored(role)]
        ranks = [rank for rank, role in enumerate(kept, 1) if match(role)]
        terms = [precision(j, rank) for j, rank in enumerate(ranks, 1)]
        return mean(terms, len(kept)) if terms else empty

    return score


def _every_rank(roles: list[str]) -> float:
    kept = [role == "match" for role in roles if role != "ignored"]
    return sum(sum(kept[:r]) / r for r in range(1, len(kept) + 1)) / len(kept) if any(kept) else NAN


EXERCISE = Exercise(
    right=_scorer(),
    cases={
        "the chapter's list": (["ignored", "wrong", "match", "wrong", "match"],),
        "match, wrong, match": (["match", "wrong", "match"],),
        "wrong, match, ignored, match, wrong, wrong": (["wrong", "match", "ignored", "match", "wrong", "wrong"],),
        "one match": (["match"],),
        "a list without a match": (["wrong", "ignored"],),
        "an empty list": ([],),
    },
    mistakes={
        "An ignored image keeps its rank in your list: take it out first, then number the rest.": _scorer(
            ignored=lambda role: False
        ),
        "An ignored image counts as a match in your list: it is neither right nor wrong.": _scorer(
            ignored=lambda role: False, match=lambda role: role != "wrong"
        ),
        "This is the trapezoid, which also uses the precision one rank before each match: step uses the precision at "
        "the match.": _scorer(precision=lambda j, r: (j / r + (1 if r == 1 else (j - 1) / (r - 1))) / 2),
        "You take the mean of the precision over all ranks: take it at the matches, where the recall "
        "grows.": _every_rank,
        "You divide by the length of the list: divide by the number of matches.": _scorer(
            mean=lambda terms, length: sum(terms) / length
        ),
        "You count 1 / r for every match: at match j there are j matches down to rank r, so the precision is "
        "j / r.": _scorer(precision=lambda j, r: 1 / r),
        "Your score depends on the first match: that is what CMC does, AP is the mean over all matches.": _scorer(
            mean=lambda terms, length: terms[0]
        ),
        "You give 0 to a query without a match: its AP is 0/0, so give nan, and the mean leaves the query "
        "out.": _scorer(empty=0.0),
        "You add the precisions at the matches: divide by the number of matches.": _scorer(
            mean=lambda terms, length: sum(terms)
        ),
        "You give the share of matches in the whole list: take the mean of the precisions at the matches.": _scorer(
            mean=lambda terms, length: len(terms) / length
        ),
    },
    notice="Two wrong images cost more at the top of the list than at its end, and images after the last match cost "
    "nothing.",
)
