"""Distances, batch-hard mining and losses: a distance gives a matrix, mining gives indices, a loss takes distances.

All of it computes in float32 (float64 stays), also inside autocast. Derived in notebooks/05_losses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from alignedreid_lib.alignment import full_precision, local_distances
from alignedreid_lib.errors import InputError


class HardTriplets(NamedTuple):
    """The hardest positive and negative of every anchor, [N] each."""

    positive: Tensor  # index of the farthest image of the anchor's identity
    negative: Tensor  # index of the nearest image of a different identity
    positive_distance: Tensor
    negative_distance: Tensor


class TripletTerm(NamedTuple):
    """The result of a triplet loss, in one form for all settings."""

    loss: Tensor  # []
    mined: HardTriplets
    distances: Tensor  # [N, N]


def unit_length(x: Tensor) -> Tensor:
    """Each vector of the last axis divided by its length, so that distances are in [0, 2]."""
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

    Source: the original reproduction. The root matters where global and local distances are added.
    """
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise InputError(
            f"distances between features of shapes {tuple(x.shape)} and {tuple(y.shape)}; give [M, C] and [N, C]"
        )
    with torch.autocast(x.device.type, enabled=False):
        x, y = full_precision(x), full_precision(y)
        squares = x.square().sum(1, keepdim=True) + y.square().sum(1)
        return torch.addmm(squares, x, y.T, alpha=-2).clamp(min=1e-12).sqrt()


def mine_batch_hard(distances: Tensor, labels: Tensor, check: bool = True) -> HardTriplets:
    """The farthest positive and the nearest negative of every anchor.

    Args:
        distances: [N, N] pairwise distances, not squared.
        labels: [N] integer identity labels; batches may be uneven.
        check: verify that every anchor has both. On a GPU the host has to wait for that; a training skips it, because
            its sampler guarantees both.

    Returns:
        indices and distances, each [N]; gradients flow through the distances. An anchor is not its own positive.

    Raises:
        InputError: an identity with one image only, a batch of one identity only, or distances that are not finite.

    Source: Hermans et al. 2017, eq. 5.
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
    mined = HardTriplets(positive, negative, positive_distance, negative_distance)
    if check:
        _check_mined(mined, labels)
    return mined


def _check_mined(mined: HardTriplets, labels: Tensor) -> None:
    """Raise InputError if an anchor has no positive, no negative, or a distance that is not finite."""
    if (mined.positive_distance.isfinite() & mined.negative_distance.isfinite()).all():
        return
    same = labels[:, None] == labels[None, :]
    alone = same.sum(dim=1) == 1
    if bool(same.all()):
        raise InputError(f"the batch has no negative for label {int(labels[0])}: all its images are of one identity")
    if bool(alone.any()):
        raise InputError(f"label {int(labels[alone][0])} has no positive: it appears once in the batch")
    raise InputError("distances are not finite numbers: some features are not, or are too large")


def triplet_loss(positive_distance: Tensor, negative_distance: Tensor, margin: float | None = 0.3) -> Tensor:
    """Mean over the anchors of max(0, ap - an + margin), or of log(1 + exp(ap - an)) without a margin.

    Args:
        positive_distance, negative_distance: [N] each (ap and an).
        margin: how much farther the negative has to be; None for the soft margin.

    Source: Hermans et al. 2017, eq. 5 and section 2 (soft margin).
    """
    gap = positive_distance - negative_distance
    return F.softplus(gap).mean() if margin is None else F.relu(gap + margin).mean()


def global_triplet(
    features: Tensor, labels: Tensor, margin: float | None, normalize: bool, check: bool = True
) -> TripletTerm:
    """Batch-hard triplet loss on global features; `margin` as in `triplet_loss`, `check` as in `mine_batch_hard`.

    Args:
        features: [N, C].
        labels: [N].
        normalize: scale features to unit length first.

    Raises:
        InputError: see `mine_batch_hard`.

    Source: AlignedReID section 3.2; Hermans et al. 2017, eq. 5.
    """
    if normalize:
        features = unit_length(full_precision(features))
    distances = euclidean_distances(features, features)
    mined = mine_batch_hard(distances, labels, check)
    return TripletTerm(triplet_loss(mined.positive_distance, mined.negative_distance, margin), mined, distances)


def local_triplet(
    features: Tensor,
    labels: Tensor,
    margin: float | None,
    normalize: bool,
    mined: HardTriplets | None = None,
    check: bool = True,
) -> TripletTerm:
    """Triplet loss on local features with distances along the shortest path; other arguments as in `global_triplet`.

    Args:
        features: [N, H, c].
        normalize: scale each stripe to unit length first.
        mined: hard samples chosen by a different distance (`global_triplet`); None mines by the local distance.

    Returns:
        the term; its `mined` contains the samples used and their local distances.

    Raises:
        InputError: see `mine_batch_hard`; or features that do not fit the labels.

    Source: AlignedReID section 3.2 mines by the global distance; the original reproduction supports both.
    """
    if features.ndim != 3 or len(features) != len(labels):
        raise InputError(
            f"local features {tuple(features.shape)} do not fit labels {tuple(labels.shape)}; give [N, H, c] and [N]"
        )
    if normalize:
        features = unit_length(full_precision(features))
    distances = local_distances(features, features)
    if mined is None:
        mined = mine_batch_hard(distances, labels, check)
    else:
        positive, negative = mined.positive, mined.negative
        if len(positive) != len(labels):
            raise InputError(f"{len(positive)} mined samples do not fit {len(labels)} labels; mine them on this batch")
        anchor = torch.arange(len(labels), device=distances.device)
        mined = HardTriplets(positive, negative, distances[anchor, positive], distances[anchor, negative])
        if check:
            _check_mined(mined, labels)
    return TripletTerm(triplet_loss(mined.positive_distance, mined.negative_distance, margin), mined, distances)


def identification(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross entropy over the training identities, mean over the batch, [].

    Args:
        logits: [N, ids].
        labels: [N], each below `ids`.
        smoothing: share of the target that all identities get alike, from 0 to below 1.

    Source: Zheng et al. 2016 ("Past, present and future"), section 4; Szegedy et al. 2016, section 7 (smoothing).
    """
    with torch.autocast(logits.device.type, enabled=False):
        return F.cross_entropy(full_precision(logits), labels, label_smoothing=smoothing)


def mutual_probability(logits: Tensor, partners: Sequence[Tensor]) -> Tensor:
    """Kullback-Leibler divergence of this model's class probabilities from a partner's, mean of partners and batch, [].

    Args:
        logits: [N, ids] of this model.
        partners: [N, ids] of each other model; no gradient flows into them.

    Raises:
        InputError: no partner, or one of a different shape.

    Source: Zhang et al. 2018 (Deep Mutual Learning), eq. 3; AlignedReID section 3.3.
    """
    _check_partners("logits", logits, partners)
    with torch.autocast(logits.device.type, enabled=False):
        own = full_precision(logits).log_softmax(1)
        others = [full_precision(partner.detach()).log_softmax(1).to(own.device) for partner in partners]
        return torch.stack([F.kl_div(own, o, reduction="batchmean", log_target=True) for o in others]).mean()


def mutual_distance(distances: Tensor, partners: Sequence[Tensor]) -> Tensor:
    """Mean squared difference between this model's distance matrix and a partner's, mean over the partners, [].

    Args:
        distances: [N, N] of this model, global or local.
        partners: [N, N] of each other model; no gradient flows into them.

    Raises:
        InputError: no partner, or one of a different shape.

    Source: AlignedReID eq. 5 (metric mutual loss).
    """
    _check_partners("distances", distances, partners)
    others = torch.stack([partner.detach().to(distances) for partner in partners])
    return (distances - others).square().mean()


def _check_partners(what: str, own: Tensor, partners: Sequence[Tensor]) -> None:
    shapes = [tuple(partner.shape) for partner in partners]
    if not shapes or own.ndim != 2 or any(shape != tuple(own.shape) for shape in shapes):
        raise InputError(f"{what} of shape {tuple(own.shape)} and of partners {shapes}: give one or more, alike")


def satisfied(mined: HardTriplets, margin: float = 0.0) -> Tensor:
    """Share of anchors whose negative is farther than the positive by more than `margin`, [] in [0, 1].

    The original reproduction logs it with margin 0 as precision, with the loss's margin as satisfaction.
    """
    return (mined.negative_distance > mined.positive_distance + margin).float().mean()
