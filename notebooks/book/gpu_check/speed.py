"""Images per second: the bare backbone, the step in all its forms, the checkpoint, the extraction of features."""

import dataclasses
import statistics
import time
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import torch

from alignedreid_lib import devices, training
from alignedreid_lib.batches import images
from alignedreid_lib.batches.sampling import IdentitySampler
from alignedreid_lib.datasets import Dataset, open_dataset
from alignedreid_lib.errors import InputError
from alignedreid_lib.evaluation import features
from alignedreid_lib.model import AlignedReID, build_backbone
from alignedreid_lib.training import TrainConfig
from alignedreid_lib.training.epoch import train_epoch
from gpu_check import card
from gpu_check.made import Setup, tested_images
from gpu_check.rows import ABSENT, Row, attempt

BARE = "bare backbone: forward, backward, Adam"
FORMS: dict[str, dict[str, Any]] = {  # how the network is called, and the setting that turns it on
    "eager": {},
    "compiled": {"compiled": True},
    "compiled, CUDA graph": {"compiled": "reduce-overhead"},
}
AS_PUBLISHED: dict[str, Any] = {"keep_last_batch": True, "draw": "replace"}  # the sampler of the published rows
GOAL_MINUTES = 3.5  # for 300 epochs of market1501_gl on an H100; an A100 with PyTorch needs about 4 for the steps alone
EPOCHS = 300


def bare_step(setup: Setup) -> float:
    """The floor: images per second of forward, backward and Adam of the backbone, its batch on the device already."""
    config = setup.config("many")
    torch.manual_seed(0)
    network = build_backbone(config.backbone).to(setup.device).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.Adam(network.parameters(), 1e-9, weight_decay=5e-4, fused=True)
    precision = devices.choose_precision("auto", setup.device, config.width)
    size = (config.ids_per_batch * config.images_per_id, 3, config.height, config.width)
    batch = images.normalize(torch.randint(0, 256, size, dtype=torch.uint8).to(setup.device))

    def steps() -> None:
        for _ in range(setup.sizes.bare_steps):
            with devices.autocast(setup.device, precision):
                out = network(batch)
            out.float().mean((2, 3)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return setup.sizes.bare_steps * len(batch) / card.seconds(steps, setup.device, setup.sizes.repeats)


def places(paths: list[Any], config: TrainConfig, device: torch.device) -> dict[str, images.ImageStore | str]:
    """The stores to take the images from, by place; in place of one that cannot be, the reason."""
    size = (config.height, config.width)
    found: dict[str, images.ImageStore | str] = {
        "host": images.ImageStore(paths, size, config.memory_limit, config.workers)
    }
    if device.type == "cpu":
        found["device"] = "the device is the CPU"
    else:
        store = images.ImageStore(paths, size, config.memory_limit, config.workers, device)
        there = store.fetch([0])[0].device.type == device.type
        found["device"] = store if there else "the images do not fit into the memory of the device"
    return found


def steps(setup: Setup) -> list[Row]:
    """Whole epochs with their batches, in all forms and from all places, compared with the bare step."""
    with card.as_in_training(devices.choose_precision("auto", setup.device, setup.sizes.image[1])):
        return _steps(setup)


def _steps(setup: Setup) -> list[Row]:
    config = setup.config("many", total_epochs=setup.sizes.epochs + 1)
    dataset = open_dataset(config.folder, "trainval")
    labels = training.train_labels(dataset)
    sampler = IdentitySampler(labels, config.ids_per_batch, config.images_per_id, config.seed)
    floor = bare_step(setup)
    precision = devices.choose_precision("auto", setup.device, config.width)
    size = f"{config.backbone} {config.height} x {config.width}, batch {config.ids_per_batch * config.images_per_id}"
    rows = [Row("step", f"{BARE}; {size}, {precision}", floor, "images/s")]
    stores = places(dataset.paths, config, setup.device)

    def in_form(form: str, settings: dict[str, Any]) -> list[Row]:
        try:
            asked = dataclasses.replace(config, **settings)
            learner = training.make_learner(asked, 0, setup.sizes.people)  # compiled once, for all places
        except InputError as error:
            return [Row("step", form, reason=str(error), verdict=ABSENT)]
        found = []
        for place, store in stores.items():
            what = f"{form}, images on the {place}"
            if isinstance(store, str):
                found.append(Row("step", what, reason=store, verdict=ABSENT))
                continue
            epochs = iter(range(1, config.total_epochs + 1))

            def epoch(store: images.ImageStore = store, epochs: Iterator[int] = epochs) -> None:
                train_epoch(next(epochs), [learner], store, labels, sampler, asked)

            card.reset_peak(setup.device)
            speed = sampler.images_per_epoch / card.seconds(epoch, setup.device, setup.sizes.epochs)
            found.append(Row("step", what, speed, "images/s", floor, "bare", peak_mb=card.peak_mb(setup.device)))
        return found

    for form, settings in FORMS.items():
        rows += attempt("step", form, partial(in_form, form, settings))
        card.tidy(setup.device)
    return rows


def checkpoint(setup: Setup) -> list[Row]:
    """A training as `make train` does it, with a checkpoint after every epoch; and what 300 epochs of it would take."""
    config = setup.config("many", total_epochs=setup.sizes.epochs + 1, **AS_PUBLISHED)
    if setup.device.type == "cuda":  # as the published presets; for a CPU it takes minutes
        config = dataclasses.replace(config, compiled=True)
    pause = config.checkpoint_every  # seconds between the checkpoints of a training
    config = dataclasses.replace(config, checkpoint_every=0.0)
    ends: list[float] = []
    result = training.train(config, setup.folder / "speed", report=lambda row: ends.append(time.perf_counter()))
    inside = statistics.median(row["seconds"] for row in result.metrics[1:])
    between = statistics.median(later - earlier for earlier, later in pairwise(ends))
    count = result.metrics[0]["seconds"] * result.metrics[0]["images_per_second"]
    speed, with_all = count / inside, count / between
    saved = min(1.0, inside / pause)  # checkpoints per epoch
    minutes = EPOCHS * (inside + saved * max(0.0, between - inside)) / 60
    of_goal = (GOAL_MINUTES, "the goal, on an H100") if setup.sizes.backbone == "resnet50" else (None, "")
    return [
        Row("training", "epochs without the checkpoint", speed, "images/s"),
        Row("training", "epochs with a checkpoint after each", with_all, "images/s", speed, "without"),
        Row("training", "the training waits for a checkpoint", max(0.0, between - inside), "s"),
        Row("training", f"{EPOCHS} epochs of this size, at this speed", minutes, "minutes", *of_goal),
    ]


def extraction(setup: Setup) -> list[Row]:
    """Features of images from files and from memory, compared with the bare forward pass."""
    with card.as_in_training(devices.choose_precision("auto", setup.device, setup.sizes.image[1])):
        return _extraction(setup)


def _extraction(setup: Setup) -> list[Row]:
    config = setup.config("many")
    dataset: Dataset = tested_images(setup)
    torch.manual_seed(0)
    network = AlignedReID(config.backbone).to(setup.device).to(memory_format=torch.channels_last).eval()
    precision = devices.choose_precision("auto", setup.device, config.width)
    size = (config.height, config.width)
    batch = torch.randint(0, 256, (min(64, len(dataset)), 3, *size), dtype=torch.uint8).to(setup.device)

    def bare() -> None:
        with torch.inference_mode(), devices.autocast(setup.device, precision):
            for _ in range(len(dataset) // len(batch)):
                network.base(images.normalize(batch))

    forward = card.seconds(bare, setup.device, setup.sizes.repeats)
    floor = len(dataset) // len(batch) * len(batch) / forward
    store = images.ImageStore(dataset.paths, size, workers=config.workers)
    store.fetch(range(len(dataset)))
    rows = [Row("extraction", "bare forward of the backbone", floor, "images/s")]
    for source, kept in (("JPEG files", None), ("decoded images", store)):

        def extract(kept: images.ImageStore | None = kept) -> None:
            features.extract(network, dataset, height=size[0], width=size[1], store=kept, workers=config.workers)

        card.reset_peak(setup.device)
        speed = len(dataset) / card.seconds(extract, setup.device, setup.sizes.repeats)
        what = f"{len(dataset)} images from {source}"
        rows.append(Row("extraction", what, speed, "images/s", floor, "bare", peak_mb=card.peak_mb(setup.device)))
    return rows
