"""Why two images are near or far: what each cell adds to the distance; a map of features. Explained in notebooks/12."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from alignedreid_lib import alignment
from alignedreid_lib.batches import images
from alignedreid_lib.errors import InputError
from alignedreid_lib.model import AlignedReID
from alignedreid_lib.model.modes import evaluating
from alignedreid_lib.search.embed import read_image

_SMALL = 1e-12  # added to lengths, as in `losses.unit_length`; squares are at least this, as in `losses`


class SimilarityMap(NamedTuple):
    """The global distance of two images, and what each cell of their last maps adds to it."""

    distance: float
    first: Tensor  # float64 [H, W], of the first image; positive: the cell makes the two more different
    second: Tensor  # float64 [H, W]; the sum of both is the distance


class PathCosts(NamedTuple):
    """The local distance of two images, and the cost of each pair of stripes along the shortest path."""

    distance: float
    costs: Tensor  # float64 [H, H] of all pairs of stripes, 0 to 1
    path: list[tuple[int, int]]  # stripes of the first and the second image; their costs sum to the distance


class Plane(NamedTuple):
    """Features seen in the two directions in which they differ most."""

    points: Tensor  # float64 [N, 2]
    shares: Tensor  # [2] of the variance; what is missing to 1 is what the map does not show


def similarity_map(
    model: AlignedReID, a: Any, b: Any, *, height: int = 256, width: int = 128, normalize_features: bool = False
) -> SimilarityMap:
    """What each cell of the last feature maps adds to the global distance of two images.

    The global feature is the mean of the map F over its n cells, g = sum_p F(p) / n. With the unit vector
    u = (g_a - g_b) / D the distance is D = u . (g_a - g_b), and so cell p of the first image adds u . F_a(p) / n, and
    cell q of the second -u . F_b(q) / n. A cell that is zero in both maps adds nothing.

    Args:
        model: an `AlignedReID` whose global feature is the mean of its last map. It is used in evaluation mode; the
            sums are made in float64.
        a, b: an image each, see `search.embed`.
        height, width: pixels of the network's input: those of its training.
        normalize_features: explain the distance of features of unit length, for networks trained so. The lengths
            of g_a and g_b are taken as given.

    Returns:
        SimilarityMap; of two equal images, zero everywhere.

    Raises:
        InputError: see `search.embed`; or a network without such a map.
    """
    maps, global_features, _ = _forward(model, (a, b), height, width)
    if maps is None or not torch.allclose(maps.mean(dim=(2, 3)), global_features, rtol=1e-4, atol=1e-5):
        raise InputError(
            "a similarity map needs a network whose global feature is the mean of its last feature map, and this one's "
            "is not; explain it by the path of its local features, or use a network with such a map"
        )
    means = maps.mean(dim=(2, 3))  # [2, C]
    if normalize_features:
        maps = maps / (means.norm(dim=1) + _SMALL)[:, None, None, None]
        means = maps.mean(dim=(2, 3))
    difference = means[0] - means[1]
    distance = float(difference.norm())
    unit = difference / max(distance, _SMALL**0.5)
    added = torch.einsum("c,nchw->nhw", unit, maps) / maps[0, 0].numel()
    return SimilarityMap(distance, added[0], -added[1])


def path_costs(model: AlignedReID, a: Any, b: Any, *, height: int = 256, width: int = 128) -> PathCosts:
    """What each pair of stripes on the shortest path adds to the local distance of two images.

    Args and errors are those of `similarity_map`; the network needs local features.
    """
    _, _, local_features = _forward(model, (a, b), height, width)
    if not local_features.numel():
        raise InputError("the path needs local features, and this network has none; use a similarity map")
    costs = alignment.stripe_distances(local_features[0], local_features[1])
    path = alignment.trace_path(costs)
    return PathCosts(float(sum(costs[i, j] for i, j in path)), costs, path)


def plane(features: Tensor) -> Plane:
    """The principal components of features: the plane in which they differ most.

    Args:
        features: [N, C], two images or more.

    Raises:
        InputError: not a matrix of two rows or more, or numbers that are not finite.
    """
    if features.ndim != 2 or len(features) < 2 or not features.isfinite().all():
        raise InputError(f"features have shape {tuple(features.shape)}; give finite ones of two images or more, [N, C]")
    centred = features.double() - features.double().mean(dim=0)
    u, lengths, _ = torch.linalg.svd(centred, full_matrices=False)
    points = torch.zeros(len(features), 2, dtype=torch.float64)
    shown = min(2, len(lengths))
    points[:, :shown] = u[:, :shown] * lengths[:shown]
    largest = points.gather(0, points.abs().argmax(dim=0)[None])  # [1, 2]
    points = points * torch.where(largest < 0, -1, 1)  # a sign is arbitrary; here the farthest point is positive
    shares = lengths.square() / lengths.square().sum().clamp(min=_SMALL)
    return Plane(points, torch.cat([shares, shares.new_zeros(2)])[:2])


def _forward(
    model: AlignedReID, pair: tuple[Any, Any], height: int, width: int
) -> tuple[Tensor | None, Tensor, Tensor]:
    """The last maps [2, C, H, W], None if there are none, global and local features; in float64."""
    pixels = [images.resize(read_image(k, image), (height, width)) for k, image in enumerate(pair)]
    batch = images.normalize(torch.stack(pixels))
    batch = batch.to(next(model.parameters()).device)
    with evaluating(model), torch.inference_mode():
        found = model(batch)  # first: it refuses a size that the backbone cannot take
        maps = model.base(batch)
    maps = maps.double().cpu() if isinstance(maps, Tensor) and maps.ndim == 4 else None
    return maps, found.global_features.double().cpu(), found.local_features.double().cpu()
