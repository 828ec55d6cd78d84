"""The network: a classification backbone whose last map feeds a global, a local and an identity branch.

Shapes: N batch, C global channels, H stripes, c local channels. Derived in notebooks/03_model.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from alignedreid_lib.errors import InputError
from alignedreid_lib.model.backbones import PROBES, TIMM, build_backbone, probe
from alignedreid_lib.model.pooling import GeneralisedMean
from alignedreid_lib.model.weights import load_imagenet, load_weights

log = logging.getLogger(__name__)

SMALLEST = 128  # pixels of a side that every backbone accepts
MOST_CHANNELS = 1 << 16  # of a local feature; the widest map of torchvision has 7 392
Pooling = Literal["mean", "gem"]
Neck = Literal["none", "batchnorm"]


class Embedding(NamedTuple):
    """The features of N images."""

    global_features: Tensor  # [N, C]; of a network with a neck: before it in training mode, else after it
    local_features: Tensor  # [N, H, c]; empty, [N, 0, 0], if the backbone has no map
    logits: Tensor | None  # [N, ids]; None without an identity head


class AlignedReID(nn.Module):
    """AlignedReID's network.

    The global feature is the mean of the last map. A local feature is one row of it: the mean over the width, then a
    1x1 convolution, batch norm and ReLU, as in the original reproduction. Parameters have the original's names
    (`base.*`, `local_conv.*`, `local_bn.*`, `fc.*`).

    A backbone without a map, such as a vision transformer, gives one vector per image, [N, C]. This vector is the
    global feature, and there is no local branch.

    With a neck, a batch norm without a shift is between two features: triplets take the one before it, the classifier
    (then without a bias) and the search the one after it. So a network in training mode gives the first, in evaluation
    mode the second.

    Args:
        backbone: a name, see `build_backbone`; or any module from images [N, 3, h, w] to a map [N, C, H, W] or to one
            vector per image, [N, C]. The module becomes `base` as it is, with its weights.
        weights: None (random, or the module's own), "imagenet" (torchvision's V1, downloaded once into torch's cache;
            only with torchvision's names), or a file.
        num_ids: identities of the classifier; None for no classifier.
        local_channels: c.
        last_stride: 2 as published, or 1 for a map of twice the height and width, see `halving.undo_last_halving`.
        pooling: "mean" as published, or "gem", see `pooling.GeneralisedMean`.
        neck: "none" as published, or "batchnorm" (BNNeck).
        num_centres: identities with a centre in the buffer `centres` [num_centres, C], see `training.centres`;
            None for no such buffer.

    Raises:
        InputError: an unknown or unfitting backbone, an invalid setting, a last_stride or a pooling that this backbone
            cannot have, or unfitting weights.

    Source: Zhang et al. 2017, section 3.1; the original reproduction; Luo et al., CVPR-W 2019, for the neck.
    """

    centres: Tensor | None

    def __init__(
        self,
        backbone: str | nn.Module = "resnet50",
        weights: str | Path | None = None,
        num_ids: int | None = None,
        local_channels: int = 128,
        last_stride: int = 2,
        pooling: Pooling = "mean",
        neck: Neck = "none",
        num_centres: int | None = None,
    ) -> None:
        super().__init__()
        if not 1 <= local_channels <= MOST_CHANNELS:
            raise InputError(f"local_channels is {local_channels}; it has to be from 1 to {MOST_CHANNELS}")
        for name, value, known in (("pooling", pooling, Pooling), ("neck", neck, Neck)):
            if value not in get_args(known):
                raise InputError(f"{name} is {value!r}; it has to be one of {', '.join(get_args(known))}")
        self.backbone = backbone if isinstance(backbone, str) else type(backbone).__name__
        if isinstance(backbone, nn.Module):
            self.base = backbone
            if last_stride != 2:
                raise InputError(
                    f"last_stride is {last_stride}, but {self.backbone} is a module: set its strides in it"
                )
        elif isinstance(backbone, str):
            self.base = build_backbone(backbone, last_stride)
        else:
            raise InputError(f"backbone is {backbone!r}; give the name of a network, or a module")
        if weights == "imagenet" and (isinstance(backbone, nn.Module) or backbone.startswith(TIMM)):
            raise InputError(f'weights "imagenet" are torchvision\'s, and {self.backbone} is not; give a file, or None')
        found = probe(self.base, self.backbone)
        channels, self.has_map, self.probed = found.channels, found.is_map, found.size
        if pooling == "gem" and not self.has_map:
            raise InputError(f"pooling is 'gem', but {self.backbone} has no feature map; set it to 'mean'")
        self.local_conv = nn.Conv2d(channels, local_channels, 1) if self.has_map else None
        self.local_bn = nn.BatchNorm2d(local_channels) if self.has_map else None
        self.local_relu = nn.ReLU(inplace=True)
        self.pool = GeneralisedMean() if pooling == "gem" else None
        self.neck = nn.BatchNorm2d(channels) if neck == "batchnorm" else None
        if self.neck is not None:
            self.neck.bias.requires_grad_(False)
        self.fc = None if num_ids is None else nn.Linear(channels, num_ids, bias=self.neck is None)
        if self.fc is not None:
            nn.init.normal_(self.fc.weight, std=0.001)
            if self.fc.bias is not None:
                nn.init.zeros_(self.fc.bias)
        self.register_buffer("centres", None if num_centres is None else torch.zeros(num_centres, channels))
        if weights is not None:
            report = load_imagenet(self, self.backbone) if weights == "imagenet" else load_weights(self, weights)
            log.info("%s: %s", weights, report)

    def forward(self, images: Tensor) -> Embedding:
        """Embed images.

        Args:
            images: float [N, 3, h, w], normalised (`images.normalize`).
        """
        feature_map = self.base(images) if torch.compiler.is_compiling() else self._last_map(images)  # [N, C, H, W]
        exact = torch.promote_types(feature_map.dtype, torch.float32)  # a mean has more bits than a bfloat16 map
        if self.local_conv is None or self.local_bn is None:  # one vector per image, [N, C]
            global_features = feature_map.to(exact)
            local_features = global_features.new_zeros(images.shape[0], 0, 0)
        else:
            mean = feature_map.mean(dim=(2, 3), dtype=exact)  # [N, C]
            global_features = mean if self.pool is None else self.pool(feature_map)  # [N, C]
            stripes = feature_map.mean(dim=3, keepdim=True, dtype=exact)  # [N, C, H, 1]
            stripes = self.local_relu(self.local_bn(self.local_conv(stripes)))  # [N, c, H, 1]
            local_features = stripes.squeeze(3).transpose(1, 2)  # [N, H, c]
        searched = global_features
        if self.neck is not None:
            searched = self.neck(global_features[:, :, None, None]).flatten(1)  # [N, C]
        logits = None if self.fc is None else self.fc(searched)
        return Embedding(global_features if self.training else searched, local_features, logits)

    def _last_map(self, images: Tensor) -> Tensor:
        """The backbone's map [N, C, H, W] or vectors [N, C]; an InputError if it cannot take images of this size."""
        height, width = images.shape[2:]
        try:
            feature_map = self.base(images)
        except (AssertionError, RuntimeError, ValueError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            if self.probed != PROBES[0] and (height, width) != self.probed:  # a transformer's positions, say
                size = f"{self.probed[0]} x {self.probed[1]}"
                raise InputError(
                    f"{self.backbone} takes images of {size}, not of {height} x {width}; resize to {size}"
                ) from None
            if min(height, width) >= SMALLEST or isinstance(error, AssertionError):
                raise
            # A pooling has nothing left to pool.
            feature_map = images[:0, :, :0]
        if 0 in feature_map.shape[2:]:
            raise InputError(f"nothing is left of images of {height} x {width} in this backbone; give larger ones")
        return feature_map
