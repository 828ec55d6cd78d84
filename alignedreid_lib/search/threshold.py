"""Same person or nobody: a threshold for searches, and how often it errs. Explained in notebooks/12."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from alignedreid_lib.errors import InputError
from alignedreid_lib.evaluation import distance_matrix
from alignedreid_lib.evaluation.features import Features
from alignedreid_lib.evaluation.verification import PairDistances, choose_threshold, roc

_ROWS = 256  # queries at a time


@dataclass(frozen=True)
class Threshold:
    """The largest distance of an answer, how it was chosen, and how often it errs there.

    Attributes:
        value: a search answers with images up to this distance.
        distance: which one, see `evaluation.distance_matrix`.
        false_alarm_rate: share of the searches for people who are not in the gallery that are answered.
        found_rate: share of the searches for people who are in the gallery whose nearest image of the person, from
            a different camera if cameras are known, is accepted.
        searches: of absent people that the rate was measured with. 1 / searches is the smallest rate above zero.
        images: how many the searched gallery has. In a larger one more strangers are near, see `expected_rate`.
        data: what it was chosen on, in words.
    """

    value: float
    distance: str
    false_alarm_rate: float
    found_rate: float
    searches: int
    images: int
    data: str

    @classmethod
    def choose(cls, nearest: PairDistances, rate: float, distance: str, images: int, data: str) -> Threshold:
        """The largest threshold whose false-alarm rate is at most `rate`.

        Args:
            nearest: see `nearest_distances`.

        Raises:
            InputError: a rate outside 0 to 1, or one so small that no threshold keeps it.
        """
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate <= 1:
            raise InputError(f"false_alarm_rate is {rate!r}; give a share from 0 to 1")
        value = choose_threshold(roc(*nearest), rate)
        if value == -np.inf:
            raise InputError(
                f"no threshold has a false-alarm rate of at most {rate:g} on {data} ({len(nearest.different)} "
                "searches); give a larger rate, or data with more people"
            )
        return cls(value, distance, *error_rates(nearest, value), len(nearest.different), images, data)

    def expected_rate(self, images: int) -> float:
        """The false-alarm rate in a gallery of a different size, if its images are like those of the data.

        With a chance p of a false alarm per image, a search among n images has one with probability 1 - (1 - p)^n.
        """
        return 1 - (1 - self.false_alarm_rate) ** (images / self.images)

    def __str__(self) -> str:
        return (
            f"{self.distance} distance up to {self.value:.4g}: {self.false_alarm_rate:.1%} false alarms, "
            f"{self.found_rate:.1%} found, chosen on {self.data} ({self.searches} searches among {self.images} images)"
        )


def nearest_distances(queries: Features, gallery: Features | None = None, distance: str = "global") -> PairDistances:
    """For each query the distance of its nearest image of the person, and that of its nearest stranger.

    The second is what a search finds first when the person is not in the gallery. Images of the person from the query's
    own camera count for neither, if cameras are known.

    Args:
        queries: with identities.
        gallery: None searches each query among the other queries.
        distance: see `evaluation.distance_matrix`.

    Returns:
        `same` of the queries with a match, and `different` of the queries with a stranger in the gallery.

    Raises:
        InputError: no query with a match, or none with a stranger.
    """
    others = queries if gallery is None else gallery
    same: list[np.ndarray] = []
    different: list[np.ndarray] = []
    for begin in range(0, len(queries), _ROWS):
        block = queries[begin : begin + _ROWS]
        matrix = distance_matrix(distance, block, others).numpy()
        person = block.ids[:, None] == others.ids
        match = person & ((block.cameras[:, None] != others.cameras) | (not others.cameras_known))
        if gallery is None:
            match[np.arange(len(block)), np.arange(begin, begin + len(block))] = False
        for found, allowed in ((same, match), (different, ~person)):
            found.append(np.where(allowed, matrix, np.inf).min(axis=1))
    one, two = (values[np.isfinite(values)] for values in (np.concatenate(same), np.concatenate(different)))
    if not len(one) or not len(two):
        raise InputError(
            f"{len(one)} searches have a match and {len(two)} a stranger: a threshold needs both; give images of "
            "two people or more, and several of each (from two cameras, if cameras are known)"
        )
    return PairDistances(one, two)


def error_rates(nearest: PairDistances, value: float) -> tuple[float, float]:
    """(false-alarm rate, found rate) of a threshold, see `Threshold`."""
    return float((nearest.different <= value).mean()), float((nearest.same <= value).mean())
