"""The data of the book's interactive figures, computed by the library. Shown in notebooks 04 and 05."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.colors import to_hex
from torch import Tensor

from alignedreid_lib import alignment
from alignedreid_lib.errors import InputError
from alignedreid_lib.figures.drawing import Figure
from alignedreid_lib.figures.interactive.output import Interactive, jpeg_address

SCALE = [to_hex(colormaps["cividis"](k / 16)) for k in range(17)]  # the colours of costs from 0 to 1


def slide_the_box(
    images: Sequence[np.ndarray],
    stripes: Tensor,
    shifts: Sequence[float],
    strangers: tuple[float, float],
    *,
    full: float,
    static: Figure,
    words: str,
) -> Interactive:
    """A box that the reader slides over a street, with both distances to the person in the perfect box.

    Args:
        images: one moment in ever lower boxes, n times uint8 [h, w, 3].
        stripes: [n, H, 3] the mean colours of their stripes; n positions, H stripes.
        shifts: by how many stripes each box is too low, in equal steps; one of them is 0, the perfect box.
        strangers: the rigid and the aligned distance of strangers.
        full: the value of `stripes` that stands for full colour.
        static, words: see `Interactive`.

    Raises:
        InputError: images, stripes and shifts that do not fit each other.
    """
    steps = np.diff(shifts)
    if not (len(images) == len(stripes) == len(shifts) > 1 and 0 in shifts and np.allclose(steps, steps[0])):
        raise InputError(
            f"{len(images)} images, {len(stripes)} rows of stripes and shifts {list(shifts)}: give one of each for "
            "every position, in equal steps through 0"
        )
    height, width = images[0].shape[:2]
    count = stripes.shape[1]
    above = round((shifts[-1] - shifts[0]) * height / count)  # rows of the first image above the last one
    street = np.concatenate([images[0][:above], images[-1]])
    perfect = stripes[list(shifts).index(0)]
    costs = alignment.stripe_distances(perfect, stripes)  # [n, H, H]
    sums = torch.stack(
        [
            torch.stack([alignment.shortest_path(costs[:, : i + 1, : j + 1]) for j in range(count)], dim=1)
            for i in range(count)
        ],
        dim=1,
    )
    rigid, aligned = (alignment.local_distances(stripes, perfect[None], how)[:, 0] for how in (False, True))
    data = {
        "shifts": [float(shift) for shift in shifts],
        "stripes": _rounded(stripes),
        "full": full,
        "costs": _rounded(costs),
        "sums": _rounded(sums),
        "paths": [alignment.trace_path(table) for table in costs],
        "rigid": _rounded(rigid),
        "aligned": _rounded(aligned),
        "strangers": [round(float(value), 4) for value in strangers],
        "street": jpeg_address(street),
        "size": [width, len(street)],
        "scale": SCALE,
    }
    return Interactive("slide_the_box", data, static, words)


def pull_the_points(
    points: Tensor, labels: Tensor, margin: float = 0.3, *, rate: float = 0.3, static: Figure, words: str
) -> Interactive:
    """Points of a plane that the reader moves, with their batch-hard triplet loss and its gradient.

    The script computes the loss and its gradient itself; it is compared with `losses` by the browser's tests.

    Args:
        points: [N, 2] features to start from.
        labels: [N] of two identities, with two features or more each.
        margin: to start with.
        rate: what the gradient is multiplied by in each of 20 steps.
        static, words: see `Interactive`.

    Raises:
        InputError: other shapes, or other numbers of identities.
    """
    identities, counts = labels.unique(return_counts=True)
    if points.ndim != 2 or tuple(points.shape) != (len(labels), 2) or len(identities) != 2 or counts.min() < 2:
        raise InputError(
            f"points of shape {tuple(points.shape)} with labels {labels.tolist()}: give [N, 2], two identities, "
            "two points or more of each"
        )
    people = (labels == identities[1]).int().tolist()
    data = {"points": _rounded(points, 2), "people": people, "margin": margin, "rate": rate}
    return Interactive("pull_the_points", data, static, words)


def _rounded(values: Tensor, digits: int = 4) -> list:
    return np.round(values.double().numpy(), digits).tolist()
