"""From a feature map to one feature: the generalised mean. Derived in notebooks/14_strong_baseline."""

from __future__ import annotations

import torch
from torch import Tensor, nn

SMALLEST_VALUE = 1e-6  # to which the map is raised: a root has no finite gradient at 0


def generalised_mean(feature_map: Tensor, power: Tensor | float) -> Tensor:
    """(mean of x ** power) ** (1 / power) over the cells of each channel: [N, C, H, W] -> [N, C].

    With power 1 it is the mean of a map that is not negative; with a growing power it goes to the maximum.

    Source: Radenovic et al. 2019, eq. 3.
    """
    return feature_map.clamp(min=SMALLEST_VALUE).pow(power).mean(dim=(2, 3)).pow(1 / power)


class GeneralisedMean(nn.Module):
    """`generalised_mean` in float32 (float64 stays), whose power is learned, the same for all channels."""

    def __init__(self, power: float = 3.0) -> None:
        super().__init__()
        self.power = nn.Parameter(torch.tensor(power))

    def forward(self, feature_map: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C]."""
        exact = torch.promote_types(feature_map.dtype, torch.float32)  # autocast lowers none of these operations
        return generalised_mean(feature_map.to(exact), self.power)
