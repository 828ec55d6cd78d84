"""Distances, batch-hard mining and losses: a distance gives a matrix, mining gives indices, a loss takes distances.

Everything is computed in float32 (float64 stays), also inside autocast. Derived in notebooks/05_losses.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from alignedreid_lib.errors import InputError


class HardTriplets(NamedTuple):
    """The hardest positive and negative of every anchor, [N] each."""

    positive: Tensor  # index of the farthest image of the anchor's identity
    negative: Tensor  # index of the nearest image of another identity
    positive_distance: Tensor
    negative_distance: Tensor


class TripletTerm(NamedTuple):
    """One triplet loss, whatever its settings."""

    loss: Tensor  # []
    mined: HardTriplets
    distances: Tensor  # [N, N]


def _full_precision(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def unit_length(x: Tensor) -> Tensor:
    """Each vector of the last axis divided by its length, so that distances lie in [0, 2]."""
    return x / (x.norm(dim=-1, keepdim=True) + 1e-12)


def euclidean_distances(x: Tensor, y: Tensor) -> Tensor:
    """All euclidean distances between two sets of vectors.

    Args:
        x: [M, C].
        y: [N, C].

    Returns:
        [M, N], rooted; squares are clamped at 1e-12 before the root, so that its gradient stays finite at zero.

    Raises:
        InputError: not two matrices of the same width.

    Source: the original reproduction roots, and so do we: it matters as soon as distances are added.
    """
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise InputError(
            f"distances between features of shapes {tuple(x.shape)} and {tuple(y.shape)}; give [M, C] and [N, C]"
        )
    with torch.autocast(x.device.type, enabled=False):
        x, y = _full_precision(x), _full_precision(y)
        squares = x.square().sum(1, keepdim=True) + y.square().sum(1)
        return torch.addmm(squares, x, y.T, alpha=-2).clamp(min=1e-12).sqrt()


def mine_batch_hard(distances: Tensor, labels: Tensor) -> HardTriplets:
    """The farthest positive and the nearest negative of every anchor.

    Args:
        distances: [N, N] pairwise distances, not squared.
        labels: [N] integer identity labels; batches may be uneven.

    Returns:
        indices and distances, each [N]; gradients flow through the distances. An anchor is not its own positive.

    Raises:
        InputError: an identity has one image only, or the batch one identity only.

    Source: Hermans et al. 2017, eq. 5. Derived in notebooks/05_losses.
    """
    n = len(labels)
    if labels.ndim != 1 or tuple(distances.shape) != (n, n):
        raise InputError(
            f"distances {tuple(distances.shape)} do not fit labels {tuple(labels.shape)}; give [N, N] and [N]"
        )
    same = labels[:, None] == labels[None, :]
    positives = same & ~torch.eye(n, dtype=torch.bool, device=labels.device)
    positive_distance, positive = distances.masked_fill(~positives, -torch.inf).max(dim=1)
    negative_distance, negative = distances.masked_fill(same, torch.inf).min(dim=1)
    # One comparison for the whole batch: on a GPU it is the only wait for the device here.
    without = ~positives.any(dim=1) | same.all(dim=1)
    if without.any():
        label = int(labels[without][0])
        if bool(same.all()):
            raise InputError(
                f"the batch has no negative for label {label}: it holds one identity only; raise ids_per_batch"
            )
        raise InputError(f"label {label} has no positive: it appears once in the batch; raise images_per_id")
    return HardTriplets(positive, negative, positive_distance, negative_distance)


def triplet_loss(positive_distance: Tensor, negative_distance: Tensor, margin: float | None = 0.3) -> Tensor:
    """Mean over the anchors of max(0, ap - an + margin), or of log(1 + exp(ap - an)) without a margin.

    Args:
        positive_distance, negative_distance: [N] each (ap and an).
        margin: how much farther the negative has to be; None for the soft margin.

    Source: Hermans et al. 2017, eq. 5 and section 2 (soft margin).
    """
    gap = positive_distance - negative_distance
    return F.softplus(gap).mean() if margin is None else F.relu(gap + margin).mean()


def global_triplet(features: Tensor, labels: Tensor, margin: float | None, normalize: bool) -> TripletTerm:
    """Batch-hard triplet loss on global features.

    Args:
        features: [N, C].
        labels: [N].
        margin: see `triplet_loss`.
        normalize: bring features to unit length first.

    Raises:
        InputError: see `mine_batch_hard`.

    Source: AlignedReID section 3.2; Hermans et al. 2017, eq. 5.
    """
    if normalize:
        features = unit_length(_full_precision(features))
    distances = euclidean_distances(features, features)
    mined = mine_batch_hard(distances, labels)
    return TripletTerm(triplet_loss(mined.positive_distance, mined.negative_distance, margin), mined, distances)


def identification(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy over the training identities, mean over the batch, [].

    Args:
        logits: [N, ids].
        labels: [N], each below `ids`.

    Source: Zheng et al. 2016 ("Person re-identification: past, present and future"), section 4.
    """
    with torch.autocast(logits.device.type, enabled=False):
        return F.cross_entropy(_full_precision(logits), labels)


def satisfied(mined: HardTriplets, margin: float = 0.0) -> Tensor:
    """Share of anchors whose negative is farther than the positive by more than `margin`, [] in [0, 1].

    With margin 0 this is what the original reproduction logs as precision, with the loss's margin as satisfaction.
    """
    return (mined.negative_distance > mined.positive_distance + margin).float().mean()
