"""Chapter 03: a feature map becomes one feature per stripe."""

import torch

from alignedreid_lib.exercises.checking import Exercise


def _map(*shape: int) -> torch.Tensor:
    """A feature map [C, H, W] of whole numbers, all different."""
    return (7 * torch.arange(shape[0] * shape[1] * shape[2]) % 23).reshape(shape).float()


EXERCISE = Exercise(
    right=lambda feature_map: feature_map.mean(dim=2).T,
    cases={
        "a feature map of 2 channels, 4 rows and 3 columns": (_map(2, 4, 3),),
        "a feature map of 3 channels, 2 rows and 2 columns": (_map(3, 2, 2),),
        "a feature map of 2 channels, 2 rows and 2 columns": (_map(2, 2, 2),),
        "a feature map of one row": (_map(2, 1, 3),),
        "a feature map of one cell": (_map(3, 1, 1),),
    },
    mistakes={
        "You average over the rows: a stripe is a row of the feature map, so average over the width, its last "
        "axis.": lambda feature_map: feature_map.mean(dim=1).T,
        "Your result is [C, H]: turn it, so that each row is one stripe with C numbers.": lambda feature_map: (
            feature_map.mean(dim=2)
        ),
        "You average over the whole feature map: that is the global feature, in which no stripe is "
        "left.": lambda feature_map: feature_map.mean(dim=(1, 2)),
        "You take the sum over the width: divide by W, or a wider image would have larger "
        "features.": lambda feature_map: feature_map.sum(dim=2).T,
        "You take the largest value of each row: the chapter's branch takes the mean.": lambda feature_map: (
            feature_map.amax(dim=2).T
        ),
        "You reshape instead of turning: `reshape` mixes channels and stripes, `.T` does not.": lambda feature_map: (
            feature_map.mean(dim=2).reshape(feature_map.shape[1], feature_map.shape[0])
        ),
        "You average over the rows, and the columns remain: average over the width, then "
        "turn the result.": lambda feature_map: feature_map.mean(dim=1),
        "You average over the channels: average over the width, and keep all channels of a row.": lambda feature_map: (
            feature_map.mean(dim=0)
        ),
    },
    notice="The row of a pattern is kept and its column is lost: people turn around, but heads stay above feet.",
)
