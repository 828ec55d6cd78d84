"""What a training step and feature extraction cost beside the bare network: ratios to a floor of the same process.

    python tests/bench_training.py [backbone ...]

Step: the library's step (batch made, normalised, loss, mining, figures) over forward, backward and Adam of the same
backbone on a fixed batch. Extraction: images/s from files on disk over images/s of the bare forward. Measured in turns,
medians of the rounds, so that a drifting machine touches both sides.

The host's share of a step on a GPU is the operations that it dispatches, as many for any batch: resnet50's are 817 in
float32 and 930 in bfloat16, of which 285 only make a view.
"""

import io
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from timing import record, timed
from torch.utils._python_dispatch import TorchDispatchMode

from alignedreid_lib import devices, training
from alignedreid_lib.batches import images
from alignedreid_lib.batches.sampling import IdentitySampler
from alignedreid_lib.datasets import Dataset
from alignedreid_lib.evaluation import features
from alignedreid_lib.model import AlignedReID, build_backbone

CASES = {  # backbone: (height, width, P, K, rounds)
    "mobilenet_v2": (128, 64, 32, 4, 5),
    "resnet50": (256, 128, 8, 4, 3),
}


def make_pictures(folder: Path, people: int, each: int, size: tuple[int, int]) -> Dataset:
    """A dataset of noisy JPEGs."""
    rng = np.random.default_rng(0)
    paths = []
    for index in range(people * each):
        stream = io.BytesIO()
        coarse = Image.fromarray(rng.integers(0, 256, (16, 8, 3), dtype=np.uint8))
        coarse.resize(size[::-1], Image.Resampling.BILINEAR).save(stream, "JPEG", quality=90)
        paths.append(folder / f"{index}.jpg")
        paths[-1].write_bytes(stream.getvalue())
    ids = np.repeat(np.arange(people), each)
    return Dataset(folder, "trainval", paths, ids, np.zeros_like(ids), ids, None)


class Dispatched(TorchDispatchMode):
    """Counts the operations that the host dispatches inside, the backward's and the optimiser's included."""

    count = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.count += 1
        return operation(*args, **(kwargs or {}))


def bench(name: str, folder: Path) -> None:
    height, width, people, each, rounds = CASES[name]
    device = devices.choose_device()
    dataset = make_pictures(folder, people * 2, each, (height, width))
    config = training.TrainConfig(backbone=name, weights=None, height=height, width=width)
    store = images.ImageStore(dataset.paths, (height, width))
    sampler = IdentitySampler(dataset.labels, people, each, seed=0)
    torch.manual_seed(0)
    network = AlignedReID(name).to(device).to(memory_format=torch.channels_last)
    bare = build_backbone(name).to(device).to(memory_format=torch.channels_last)
    precision = devices.choose_precision("auto", device, width)
    optimizers = [torch.optim.Adam(m.parameters(), 1e-9, weight_decay=5e-4, fused=True) for m in (network, bare)]
    learner = training.Learner(network, network, optimizers[0], device, precision)
    fixed = images.normalize(torch.stack(store.fetch(next(iter(sampler)))).to(device))

    def floor_step() -> None:
        with devices.autocast(device, precision):
            y = bare(fixed)
        y.float().mean((2, 3)).square().mean().backward()
        optimizers[1].step()
        optimizers[1].zero_grad(set_to_none=True)

    def our_steps() -> None:
        def make(numbered):
            batch = training.make_batch(store, numbered[1], config, (1, 1, numbered[0]))
            return batch, torch.from_numpy(dataset.labels[numbered[1]])

        for batch, labels in images.prefetch(make, enumerate(sampler)):
            training.train_step(learner, batch, labels, config)

    for call in (floor_step, our_steps):
        call()
    store.fetch(range(len(dataset)))
    ours, floor = [], []
    for _ in range(rounds):
        floor.append(statistics.mean(timed(floor_step, device) for _ in range(len(sampler))))
        ours.append(timed(our_steps, device) / len(sampler))
    ratio = statistics.median(a / b for a, b in zip(ours, floor, strict=True))
    print(
        f"{name} {height} x {width}, batch {people * each}, {precision} on {device.type}: "
        f"step {statistics.median(ours):.3f} s, bare {statistics.median(floor):.3f} s, ratio {ratio:.2f} (at most 1.10)"
    )

    with Dispatched() as dispatched:
        batch = images.augment(store.fetch(range(people * each)), (height, width), torch.Generator())
        training.train_step(learner, batch, torch.from_numpy(dataset.labels[: people * each]), config)
    print(f"  a step dispatches {dispatched.count} operations")

    what = f"{name} {height} x {width}, batch {people * each}, {precision}"
    floor_is = "forward, backward and Adam of the bare backbone"
    middle = statistics.median(ours), statistics.median(floor)
    record("training step", what, *middle, floor_is, ratio=ratio, limit=1.1)

    network.eval()
    n = len(dataset)

    def floor_forward() -> None:
        with torch.inference_mode(), devices.autocast(device, precision):
            for _ in range(n // len(fixed)):
                bare.eval()(fixed)

    def extraction(decoded: images.ImageStore | None) -> None:
        features.extract(network, dataset, height=height, width=width, batch_size=len(fixed), store=decoded)

    for source, decoded in (("JPEG files", None), ("decoded images", store)):
        for call in (floor_forward, lambda d=decoded: extraction(d)):
            call()
        pairs = [(timed(lambda d=decoded: extraction(d), device), timed(floor_forward, device)) for _ in range(rounds)]
        ratio = statistics.median(b / a for a, b in pairs)
        speed = n / statistics.median(a for a, _ in pairs)
        print(
            f"  extraction {speed:.0f} images/s from {source}, {ratio:.0%} of the bare forward's speed (at least 90 %)"
        )
        what = f"{n} images from {source}, {name} {height} x {width}, {precision}"
        middle = [statistics.median(values) for values in zip(*pairs, strict=True)]
        record("extraction", what, *middle, "bare forward", ratio=1 / ratio, limit=1.11, images_per_second=speed)


def main(names: list[str]) -> None:
    for name in names or CASES:
        with tempfile.TemporaryDirectory() as folder:
            bench(name, Path(folder))


if __name__ == "__main__":
    main(sys.argv[1:])
