"""What a test costs after the features: local distances, scoring and re-ranking, at Market-1501's size on a GPU."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from alignedreid_lib import alignment
from alignedreid_lib.datasets.partitions import GALLERY, QUERY
from alignedreid_lib.evaluation import evaluate
from alignedreid_lib.evaluation.features import Features
from alignedreid_lib.evaluation.ranking import score_ranking
from alignedreid_lib.evaluation.reranking import rerank
from gpu_check import card
from gpu_check.made import Setup
from gpu_check.rows import Row, compared

TILE = 256  # people of a tile of the floor of local distances
PEOPLE = 750
MOST_MEMORY = 8000.0  # MB that a whole test of Market-1501 may take


def drawn(setup: Setup, *shape: int) -> Tensor:
    """Features on the device, 0 or more as after a ReLU."""
    generator = torch.Generator().manual_seed(math.prod(shape))
    return torch.randn(shape, generator=generator).relu_().to(setup.device)


def timed(setup: Setup, check: str, what: str, call: Callable[[], object], floor: float | None, is_: str) -> Row:
    """The row of a call: seconds, with the peak of the memory."""
    card.tidy(setup.device)
    card.reset_peak(setup.device)
    seconds = card.seconds(call, setup.device, setup.sizes.repeats)
    return Row(check, what, seconds, "s", floor, is_, peak_mb=card.peak_mb(setup.device))


def local_distances(setup: Setup) -> list[Row]:
    """All local distances of queries to gallery images, compared with the bare product of the stripes."""
    sizes = setup.sizes
    x, y = (drawn(setup, n, sizes.stripes, sizes.local_channels) for n in (sizes.queries, sizes.gallery))
    side = TILE * sizes.stripes
    out = torch.empty(side, side, device=setup.device)

    def product() -> None:
        for a in x.flatten(0, 1).split(side):
            for b in y.flatten(0, 1).split(side):
                torch.mm(a, b.T, out=out[: len(a), : len(b)])

    floor = card.seconds(product, setup.device, sizes.repeats)
    size = f"{sizes.queries} x {sizes.gallery}, {sizes.stripes} stripes of {sizes.local_channels}"
    is_ = "product of the stripes, in tiles"
    return [
        timed(setup, "distances", f"aligned distances, {size}", lambda: alignment.local_distances(x, y), floor, is_),
        timed(
            setup,
            "distances",
            f"rigid distances, {size}",
            lambda: alignment.local_distances(x, y, aligned=False),
            floor,
            is_,
        ),
    ]


def _people(setup: Setup) -> tuple[np.ndarray, np.ndarray]:
    """Identities and cameras of all images, the queries first, as many as in Market-1501."""
    rng = np.random.default_rng(0)
    count = setup.sizes.queries + setup.sizes.gallery
    return rng.integers(1, PEOPLE + 1, count), rng.integers(1, 7, count)


def scoring(setup: Setup) -> list[Row]:
    """CMC and mean average precision from a matrix of random distances, which is on the device."""
    sizes = setup.sizes
    ids, cameras = _people(setup)
    q = sizes.queries
    matrix = drawn(setup, q, sizes.gallery)

    def score() -> object:
        return score_ranking(matrix, ids[:q], ids[q:], cameras[:q], cameras[q:])

    return [timed(setup, "scoring", f"{q} x {sizes.gallery}, chance", score, None, "")]


def re_ranking(setup: Setup) -> list[Row]:
    """Re-ranking from global features, compared with the product of all features and the search for the nearest."""
    sizes = setup.sizes
    queries, gallery = (drawn(setup, n, sizes.channels) for n in (sizes.queries, sizes.gallery))
    whole = torch.cat([queries, gallery])
    norms = whole.square().sum(dim=1)
    step = max(1, (128 << 20) // (4 * len(whole)))

    def search() -> None:
        for rows in whole.split(step):
            torch.addmm(norms, rows, whole.T, alpha=-2).topk(21, dim=1, largest=False)

    floor = card.seconds(search, setup.device, sizes.repeats)
    what = f"{sizes.queries} x {sizes.gallery}, {sizes.channels} channels"
    floor_is = "product and the 21 nearest of every row"
    return [timed(setup, "re-ranking", what, lambda: rerank(queries, gallery), floor, floor_is)]


def whole_test(setup: Setup) -> list[Row]:
    """The whole score table with local distances and re-ranking, from features on the CPU, on the device."""
    what = "the whole table, global, local and their sum, re-ranked"
    sizes = setup.sizes
    ids, cameras = _people(setup)
    count = len(ids)
    marks = np.where(np.arange(count) < sizes.queries, QUERY, GALLERY)
    features = Features(
        drawn(setup, count, sizes.channels).cpu(),
        drawn(setup, count, sizes.stripes, sizes.local_channels).cpu(),
        ids,
        cameras,
        marks,
        [str(k) for k in range(count)],
    )
    card.tidy(setup.device)
    card.reset_peak(setup.device)
    seconds = card.seconds(lambda: evaluate(features, device=str(setup.device)), setup.device, 1, warm_up=0)
    rows = [Row("test", what, seconds, "s", peak_mb=card.peak_mb(setup.device))]
    if rows[0].peak_mb is not None:
        rows.append(compared("test", "peak memory of the table", rows[0].peak_mb, "MB", MOST_MEMORY, "a GPU of 8 GB"))
    return rows
