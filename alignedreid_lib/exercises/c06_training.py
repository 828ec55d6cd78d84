"""Chapter 06: the learning rate of an epoch."""

from collections.abc import Callable

from alignedreid_lib.exercises.checking import Exercise


def _schedule(
    add: int = 1, over: int = 1, steps: bool = False, ever: bool = False, late: int = 0
) -> Callable[..., float]:
    """A function of the epoch, the base rate, the first epoch of the fall and the last epoch.

    Args:
        add: to the numerator of the exponent.
        over: to its denominator.
        steps: fall on a straight line.
        ever: fall from epoch 1.
        late: epochs after `start` that still have the base rate.
    """

    def rate(epoch: int, base: float, start: int, last: int) -> float:
        if ever:
            return base * 0.001 ** (epoch / last)
        if epoch < start + late:
            return base
        share = (epoch + add - start) / (last + over - start)
        return base * (1 - 0.999 * share if steps else 0.001**share)

    return rate


EXERCISE = Exercise(
    right=_schedule(),
    cases={
        "epoch 2 of the chapter's example": (2, 1.0, 3, 4),
        "epoch 3, the first of the fall": (3, 1.0, 3, 4),
        "epoch 4, the last one": (4, 1.0, 3, 4),
        "epoch 200 of a fall from epoch 151 to 300": (200, 1.0, 151, 300),
        "epoch 150, before this fall": (150, 2.0, 151, 300),
        "a fall over one epoch": (5, 1.0, 5, 5),
        "a fall from epoch 1": (1, 1.0, 1, 3),
    },
    mistakes={
        "In epoch s the rate still has its base value in your function: the fall begins in epoch s, so the numerator "
        "is e + 1 - s.": _schedule(add=0),
        "Epoch s still has the base rate in your function: the fall begins in epoch s, so compare with < instead of "
        "<=.": _schedule(late=1),
        "The last epoch is below a thousandth of the base rate: epochs s to T are T + 1 - s epochs, the first and the "
        "last included.": _schedule(over=0),
        "You count one epoch too few, above and below the line: add 1 to both, since epoch s belongs to the "
        "fall.": _schedule(add=0, over=0),
        "Your rate falls from the first epoch: before epoch s it is the base rate.": _schedule(ever=True),
        "Your rate falls on a straight line: every epoch divides it by the same number, so the share is the "
        "exponent of 0.001.": _schedule(steps=True),
        "Your rate ignores the base: multiply by it.": lambda epoch, base, start, last: _schedule()(
            epoch, 1.0, start, last
        ),
    },
    notice="Each epoch of the fall divides the rate by the same number: a straight line on a logarithmic axis.",
)
