"""The centre loss: features are pulled to the centre of their identity. Derived in notebooks/14_strong_baseline."""

from __future__ import annotations

import torch
from torch import Tensor

from alignedreid_lib.alignment import full_precision


def centre_loss(features: Tensor, labels: Tensor, centres: Tensor) -> Tensor:
    """Half the squared distance of a feature from the centre of its identity, mean over the batch, [].

    Args:
        features: [N, C].
        labels: [N], each below `ids`.
        centres: [ids, C]; no gradient flows into them.

    Source: Wen et al. 2016, eq. 2, divided by N.
    """
    with torch.autocast(features.device.type, enabled=False):
        gaps = full_precision(features) - centres.detach()[labels]
        return gaps.square().sum(dim=1).mean() / 2


@torch.no_grad()
def move_centres(centres: Tensor, features: Tensor, labels: Tensor, rate: float) -> None:
    """Move the centre of each identity of a batch to the mean of its features, in place.

    With n images of an identity it goes rate * n / (1 + n) of the distance: an identity with few images is less sure.

    Args:
        centres: [ids, C].
        features: [N, C].
        labels: [N].
        rate: above 0, at most 1.

    Source: Wen et al. 2016, eq. 4.
    """
    with torch.autocast(features.device.type, enabled=False):
        own = (torch.arange(len(centres), device=labels.device)[:, None] == labels).to(centres)  # [ids, N]
        count = own.sum(dim=1, keepdim=True)
        centres -= rate * (count * centres - own @ features.to(centres)) / (1 + count)
