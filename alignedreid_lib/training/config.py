"""The settings of a training, checked when they are made, and its learning rate. Derived in notebooks/06_training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from alignedreid_lib import devices, runs
from alignedreid_lib.batches.sampling import Draw
from alignedreid_lib.model.network import MOST_CHANNELS, Neck, Pooling
from alignedreid_lib.runs import check_rules, check_types

# Settings that may change when a run is resumed: where and how to compute, not what. The images and labels under
# `data_root` are compared, see `checkpoint.fingerprint`.
FREE_SETTINGS = ("data_root", "device", "model_devices", "compiled", "workers", "memory_limit", "checkpoint_every")


def _not_empty(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("empty", "text that is not empty")
    return text


LIMIT = 2**31 - 1
LARGEST_SEED = 2**32 - 1  # numpy takes 32 bits
SEED_STEP = 1000  # model k of several has the seed + 1000 k
Name = Annotated[str, AfterValidator(_not_empty)]
Count = Annotated[int, Field(ge=1, le=LIMIT)]
Several = Annotated[int, Field(ge=2, le=LIMIT)]
Number = Annotated[int, Field(ge=0, le=LIMIT)]
Side = Annotated[int, Field(ge=1, le=2048)]  # pixels
Share = Annotated[float, Field(ge=0, le=1)]
PositiveShare = Annotated[float, Field(gt=0, le=1)]
Weight = Annotated[float, Field(ge=0)]

LAST_SHARE = 0.001  # the last epoch's share of the base rate
GRAPH_MODES = ("reduce-overhead", "max-autotune")  # of torch.compile, that record CUDA graphs

# Each term of mutual learning compares what a loss of the model's own computes.
MUTUAL_TERMS = {
    "probability_weight": "id_weight",
    "global_mutual_weight": "global_weight",
    "local_mutual_weight": "local_weight",
}


@dataclass(frozen=True)
class TrainConfig:
    """The settings of one training; most defaults are the original reproduction's for Market-1501.

    Exceptions: its sampler has `keep_last_batch=True` and `draw="replace"`; the presets of its published rows set them.

    Raises:
        InputError: a value of a wrong type, or one that cannot work; the message names it.
    """

    # Data. The dataset's folder is data_root/dataset, in the unified layout.
    data_root: Name = "data"
    dataset: Name = "market1501"  # or cuhk03/detected, ...
    train_part: Literal["trainval", "train"] = "trainval"  # train leaves the validation people out
    height: Side = 256  # pixels, of the network's input
    width: Side = 128
    mirror_prob: Share = 0.5
    crop_prob: Share = 0.0  # the original's default: no random crops
    crop_ratio: PositiveShare = 1.0  # smallest share of a side that a crop keeps
    pad: Annotated[int, Field(ge=0, le=256)] = 0  # black pixels on each side, before a crop of the input's size
    erase_prob: Share = 0.0  # of a rectangle that becomes the mean colour
    ids_per_batch: Several = 32  # P; an anchor needs a negative
    images_per_id: Several = 4  # K; an anchor needs a positive
    keep_last_batch: bool = False  # also train on the people left over at the end of an epoch, as the original does
    draw: Draw = "cover"  # use each image of a person with fewer than K before any repeats

    # Network.
    backbone: Name = "resnet50"
    weights: str | None = "imagenet"  # None, "imagenet", or a file
    local_channels: Annotated[int, Field(ge=1, le=MOST_CHANNELS)] = 128
    last_stride: Annotated[int, Field(ge=1, le=2)] = 2
    pooling: Pooling = "mean"  # from map to global feature; gem: generalised mean with a power that is learnt
    neck: Neck = "none"  # batchnorm: between the triplets' features and those of classifier and test (BNNeck)

    # Loss: weight * term, summed.
    global_weight: Weight = 1.0  # batch-hard triplets on global features
    local_weight: Weight = 0.0  # triplets on local distances
    local_mining: Literal["global", "local"] = "global"  # the distance that chooses their hard samples; the paper's
    id_weight: Weight = 0.0  # identification: cross entropy over the training people
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0  # its share for all people alike; needs id_weight
    centre_weight: Weight = 0.0  # pulls global features to the centre of their identity
    centre_rate: PositiveShare = 0.5  # at which a centre moves to its images of the batch
    margin: Weight | None = 0.3  # None: soft margin
    normalize: bool = False  # features to unit length; the original's better half is False
    normalize_test: bool = False  # only at the test, as usual with a neck

    # Mutual learning: models that see the same images and also learn from each other.
    num_models: Annotated[int, Field(ge=1, le=LARGEST_SEED // SEED_STEP)] = 1  # each has a seed
    backbones: tuple[Name, ...] = ()  # one for each model; () for `backbone` for all
    model_devices: tuple[Name, ...] = ()  # likewise; () for `device` for all
    twins: Literal["refuse", "noise"] = "refuse"  # models that start equal; noise parts them by a millionth
    own_views: bool = False  # each model mirrors and crops for itself; as published all see one batch
    probability_weight: Weight = 0.0  # weights the term on class probabilities; needs id_weight
    global_mutual_weight: Weight = 0.0  # weights the term on global distance matrices; needs global_weight
    local_mutual_weight: Weight = 0.0  # weights the term on local distance matrices; needs local_weight

    # Optimiser and schedule.
    base_lr: Annotated[float, Field(gt=0)] = 2e-4
    weight_decay: Weight = 5e-4
    total_epochs: Count = 300
    schedule: Literal["exponential", "staircase", "cosine"] = "exponential"
    decay_at_epoch: int = 151  # exponential and cosine: the first epoch of the fall
    staircase_at_epochs: tuple[int, ...] = (101, 201)  # staircase: the epochs of the steps
    staircase_factor: PositiveShare = 0.1
    warmup_epochs: Number = 0  # over which the rate climbs to the base in equal steps; as published 0

    # Several processes, each with its device and its share of every batch.
    processes: Count = 1
    sync_batch_norm: bool = False  # batch norm over the whole batch instead of each process's share

    # Validation: the model ranks the val part after this many epochs each, and the best weights are kept; 0 for never.
    validate_every: Number = 0

    # Machine.
    seed: Annotated[int, Field(ge=0)] = 1
    device: Name = "auto"
    precision: str = "auto"  # or float32, tf32, bfloat16, float16; a run keeps what "auto" comes to at its start
    deterministic: bool = False  # refuse operations whose result depends on timing (GPUs have some)
    # torch.compile the network, or a mode of it: a minute at the start, then faster steps; CPUs need g++. The modes
    # "reduce-overhead" and "max-autotune" record CUDA graphs: only on GPUs of Nvidia, not yet run on one.
    compiled: bool | str = False
    workers: Count = 2  # threads that decode and augment images
    memory_limit: Annotated[int, Field(ge=0)] = 4 << 30  # bytes of decoded images to keep
    checkpoint_every: Weight = 60.0  # seconds; 0 for after every epoch

    def __post_init__(self) -> None:
        check_types(self)
        rules = {
            "weights": (self.weights is None or bool(self.weights.strip()), 'a file, "imagenet" or None'),
            "id_weight": (
                self.global_weight + self.local_weight + self.id_weight > 0,
                "above 0 if global_weight and local_weight are 0",
            ),
            "pad": (self.pad < min(self.height, self.width), f"below {min(self.height, self.width)}, the smaller side"),
            "neck": (self.neck == "none" or self.id_weight > 0, "'none', or id_weight above 0"),
            "label_smoothing": (self.label_smoothing == 0 or self.id_weight > 0, "0, or id_weight above 0"),
            "processes": (
                self.ids_per_batch % self.processes == 0
                and (self.processes == 1 or not (self.model_devices or ":" in self.device)),
                f"1 or more, a divisor of ids_per_batch ({self.ids_per_batch}), and 1 where one device is named",
            ),
            "sync_batch_norm": (
                not self.sync_batch_norm or (self.processes > 1 and not self.compiled),
                "False, unless there are several processes and compiled is False",
            ),
            "own_views": (not self.own_views or self.num_models > 1, "False, or num_models 2 or more"),
            "compiled": (
                isinstance(self.compiled, bool) or self.compiled in GRAPH_MODES,
                "True, False or one of " + ", ".join(GRAPH_MODES),
            ),
            "warmup_epochs": (self.warmup_epochs < self.total_epochs, f"from 0 to {self.total_epochs - 1}"),
            "decay_at_epoch": (
                self.schedule == "staircase" or 1 <= self.decay_at_epoch <= self.total_epochs,
                f"between 1 and total_epochs ({self.total_epochs})",
            ),
            "staircase_at_epochs": (
                self.schedule != "staircase"
                or (
                    list(self.staircase_at_epochs) == sorted(set(self.staircase_at_epochs))
                    and all(1 <= epoch <= self.total_epochs for epoch in self.staircase_at_epochs)
                ),
                f"rising epochs between 1 and total_epochs ({self.total_epochs})",
            ),
            "validate_every": (
                self.validate_every == 0 or self.train_part == "train",
                "0, or 1 or more with train_part 'train', which leaves the validation people out",
            ),
            "precision": (self.precision in devices.PRECISIONS, "one of " + ", ".join(devices.PRECISIONS)),
            "twins": (self.twins == "refuse" or self.num_models > 1, "'refuse', or num_models above 1"),
            "seed": (self.seed <= max_seed(self.num_models), f"from 0 to {max_seed(self.num_models)}"),
        }
        for name in ("backbones", "model_devices"):
            fits = len(getattr(self, name)) in (0, self.num_models)
            rules[name] = fits, f"() or {self.num_models} names, one per model"
        for name, needed in MUTUAL_TERMS.items():
            works = getattr(self, name) == 0 or (self.num_models > 1 and getattr(self, needed) > 0)
            rules[name] = works, f"0, or above it with two models or more and {needed} above 0"
        check_rules(self, rules)

    @property
    def folder(self) -> Path:
        """The dataset's folder."""
        return runs.resolve(self.data_root) / self.dataset

    @property
    def unit_test(self) -> bool:
        """True if the test scales features to unit length."""
        return self.normalize or self.normalize_test


def max_seed(num_models: int = 1) -> int:
    """The largest seed of a training: numpy takes 32 bits, and model k has the seed + 1000 k."""
    return LARGEST_SEED - SEED_STEP * (num_models - 1)


def learning_rate(config: TrainConfig, epoch: int) -> float:
    """The learning rate of an epoch, counted from 1.

    Exponential: base until decay_at_epoch s, then base * 0.001 ** x with x = (epoch + 1 - s) / (total + 1 - s), so that
    the last epoch has a thousandth of the base. Cosine: likewise, with base * (0.001 + 0.999 * (1 + cos(pi x)) / 2).
    Staircase: base * factor ** (steps reached). In the first w `warmup_epochs` the rate is epoch / (w + 1) of that.

    Source: the original reproduction; the exponential form is Hermans et al. 2017, section 4; the cosine Loshchilov and
        Hutter 2017, without restarts.
    """
    base = config.base_lr * min(1.0, epoch / (config.warmup_epochs + 1))
    if config.schedule == "staircase":
        return base * config.staircase_factor ** sum(epoch >= step for step in config.staircase_at_epochs)
    start = config.decay_at_epoch
    if epoch < start:
        return base
    part = (epoch + 1 - start) / (config.total_epochs + 1 - start)
    if config.schedule == "cosine":
        return base * (LAST_SHARE + (1 - LAST_SHARE) * (1 + math.cos(math.pi * part)) / 2)
    return base * LAST_SHARE**part
