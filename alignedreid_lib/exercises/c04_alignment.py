"""Chapter 04: the table of least sums."""

from collections.abc import Callable

from alignedreid_lib.exercises.checking import Exercise

Table = list[list[float]]


def _without_own(costs: Table) -> Table:
    S = [list(row) for row in costs]
    for i, row in enumerate(S):
        for j in range(len(row)):
            near = [S[i - 1][j]] * (i > 0) + [row[j - 1]] * (j > 0)
            row[j] = min(near, default=0)
    return S


def _from_other_end(costs: Table) -> Table:
    S = [list(row) for row in costs]
    for i, row in enumerate(S):
        for j in range(len(row)):
            row[j] += min(S[i - 1][j], row[j - 1])
    return S


def _filler(
    diagonal: bool = False, greedy: bool = False, border: bool = True, choose: Callable[..., float] = min
) -> Callable[[Table], Table]:
    """A function that fills a table: from which neighbours, and of what the least is taken."""

    def fill(costs: Table) -> Table:
        S = [list(row) for row in costs]
        before = costs if greedy else S
        for i, row in enumerate(costs):
            for j, cost in enumerate(row):
                near = [before[i - 1][j]] * (i > 0) + [before[i][j - 1]] * (j > 0)
                near += [before[i - 1][j - 1]] * (diagonal and i > 0 and j > 0)
                if near and (border or (i > 0 and j > 0)):
                    S[i][j] = cost + choose(near)
        return S

    return fill


EXERCISE = Exercise(
    right=_filler(),
    cases={
        "the chapter's table": ([[1, 9, 9, 9], [1, 2, 9, 9], [9, 3, 1, 2]],),
        "the table 1 2 / 3 4": ([[1, 2], [3, 4]],),
        "a table of equal costs": ([[2, 2, 2], [2, 2, 2], [2, 2, 2]],),
        "a table of one row": ([[1, 5, 2]],),
        "a table of one column": ([[1], [5], [2]],),
        "a table of one cell": ([[3]],),
    },
    mistakes={
        "The path may move diagonally in your table: take the minimum of the sums above and left.": _filler(
            diagonal=True
        ),
        "You add the smaller neighbouring cost: add the smaller neighbouring sum, which contains the whole path to "
        "that cell.": _filler(greedy=True),
        "The first row and the first column have only one neighbour, but a path reaches their cells too: add its "
        "sum.": _filler(border=False),
        "You add the larger of the two sums: the path is the cheapest one, so take the minimum.": _filler(choose=max),
        "You add both neighbours: a path reaches a cell from one of them, from the one with the smaller sum.": _filler(
            choose=sum
        ),
        "You return the last sum, the local distance: return the whole table.": lambda costs: _filler()(costs)[-1][-1],
        "The cell's own cost is missing: add it to the smaller of the two sums.": _without_own,
        "In the first row and column your index is -1, which in Python is the other end of the table: treat these "
        "cells separately.": _from_other_end,
        "You add the costs of stripe 1 with 1, 2 with 2 and so on, which is the rigid distance: fill the whole table "
        "of sums.": lambda costs: sum(costs[i][i] for i in range(min(len(costs), len(costs[0])))),
    },
    notice="Without diagonal steps every path of an H x H table has 2H - 1 cells, so local distances can be compared.",
)
