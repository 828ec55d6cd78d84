"""What a check returns: rows of a table, each a number with its unit and what it is compared with."""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

OK, FAILED, MEASURED, ABSENT = "ok", "FAILED", "measured", "not available"


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        check: the check it is from, as in the rows of `make bench` where that measures the same.
        what: was compared or measured, with its size.
        value, unit: the number; None where there is none.
        reference: the bound of a comparison, the floor or the goal of a measurement; None where there is none.
        reason: why the bound is what it is, or what the floor is; of a failure or an absence, the one-line error.
        verdict: ok, FAILED, measured or not available. Only comparisons can fail.
        peak_mb: peak memory of the device, MB; None where it was not measured.
    """

    check: str
    what: str
    value: float | None = None
    unit: str = ""
    reference: float | None = None
    reason: str = ""
    verdict: str = MEASURED
    peak_mb: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """For JSON, which has no nan and no infinity."""
        plain = dataclasses.asdict(self)
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in plain.items()
        }

    def line(self) -> str:
        """For the terminal."""
        number = "" if self.value is None else f"{self.value:.4g} {self.unit}"
        beside = "" if self.reference is None else f"{self.reference:.4g}"
        memory = "" if self.peak_mb is None else f"; {self.peak_mb:.0f} MB at the peak"
        return f"{self.check:<20} {self.what:<62} {number:>19} {beside:>9}  {self.verdict}  {self.reason}{memory}"


HEADING = f"{'check':<20} {'what':<62} {'value':>19} {'compared':>9}  verdict"


def compared(check: str, what: str, value: float, unit: str, bound: float, reason: str) -> Row:
    """A comparison: it fails above its bound, and where the value is not a number."""
    verdict = OK if value <= bound else FAILED
    return Row(check, what, value, unit, bound, reason, verdict)


def attempt(check: str, what: str, function: Callable[[], list[Row]]) -> list[Row]:
    """The rows of a check, or of a part of it; an error becomes a row that fails, and the rest is still made."""
    try:
        return function()
    except Exception as error:
        words = " ".join(str(error).split()) or "no message"
        return [Row(check, what, reason=f"{type(error).__name__}: {words}", verdict=FAILED)]
