"""What local distances cost beside the bare matrix product of the same size: ratios of one process.

    python tests/bench_alignment.py [queries gallery]

All pairs of Market-1501's test set unless told (3 368 x 15 913 people of 8 stripes x 128 channels). The floor is the
float32 product of all stripes with all stripes, in tiles, its result thrown away. Measured in turns. Then the local
loss beside a training step.
"""

import resource
import statistics
import sys

import torch
from timing import record, timed

from alignedreid_lib import alignment, devices, losses, training
from alignedreid_lib.model import AlignedReID

STRIPES, CHANNELS, ROUNDS = 8, 128, 3


def peak_mebibytes() -> float:
    """The most memory this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def product(x: torch.Tensor, y: torch.Tensor, side: int) -> None:
    """All stripes of x with all stripes of y, in tiles of side x side people."""
    out = torch.empty(side * STRIPES, side * STRIPES, device=x.device)
    for i in range(0, len(x), side):
        for j in range(0, len(y), side):
            a, b = x[i : i + side].flatten(0, 1), y[j : j + side].flatten(0, 1)
            torch.mm(a, b.T, out=out[: len(a), : len(b)])


def bench_all_pairs(queries: int, gallery: int) -> None:
    device = devices.choose_device()
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(n, STRIPES, CHANNELS, generator=generator).to(device) for n in (queries, gallery))
    before = peak_mebibytes()
    calls = {
        "product": lambda: product(x, y, 256),
        "aligned": lambda: alignment.local_distances(x, y),
        "rigid": lambda: alignment.local_distances(x, y, aligned=False),
    }
    calls["aligned"]()
    beyond = peak_mebibytes() - before - queries * gallery * 4 / 2**20
    calls["product"]()
    seconds = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            seconds[name].append(timed(call, device))
    for name in ("aligned", "rigid"):
        ratio = statistics.median(a / b for a, b in zip(seconds[name], seconds["product"], strict=True))
        limit = " (at most 2)" if name == "aligned" else ""
        ours, floor = statistics.median(seconds[name]), statistics.median(seconds["product"])
        print(
            f"{name} distances of {queries} x {gallery} people on {device.type}: {ours:.2f} s, product {floor:.2f} s, "
            f"ratio {ratio:.2f}{limit}"
        )
        floor_is = "product of the stripes, in tiles"
        sizes = f"{name} distances, {queries} x {gallery}, {STRIPES} stripes of {CHANNELS}"
        limit = {"limit": 2.0} if name == "aligned" else {}
        record("distances", sizes, ours, floor, floor_is, ratio=ratio, **limit)
    print(f"  {max(0.0, beyond):.0f} MiB beyond the result (at most 1500)")


def bench_loss(name: str, height: int, width: int, n: int) -> None:
    device = devices.choose_device()
    torch.manual_seed(0)
    network = AlignedReID(name).to(device).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), 1e-9, fused=True)
    precision = devices.choose_precision("auto", device, width)
    learner = training.Learner(network, network, optimizer, device, precision)
    batch = torch.randint(0, 256, (n, 3, height, width), dtype=torch.uint8, device=device)
    labels = torch.arange(n, device=device) // 4
    local = torch.randn(n, STRIPES, CHANNELS, device=device, requires_grad=True)

    def step(local_weight: float) -> None:
        config = training.TrainConfig(backbone=name, weights=None, local_weight=local_weight)
        training.train_step(learner, batch, labels, config)

    calls = {
        "without": lambda: step(0.0),
        "with": lambda: step(1.0),
        "alone": lambda: losses.local_triplet(local, labels, 0.3, False).loss.backward(),
    }
    seconds = {key: [] for key in calls}
    for call in calls.values():
        call()
    for _ in range(6):
        for key, call in calls.items():
            seconds[key].append(timed(call, device))
    ratio = statistics.median(b / a for a, b in zip(seconds["without"], seconds["with"], strict=True))
    middle = {key: statistics.median(values) for key, values in seconds.items()}
    print(
        f"{name} {height} x {width}, batch {n}, {precision}: step {middle['without']:.3f} s, with the local "
        f"loss {middle['with']:.3f} s, ratio {ratio:.2f} (at most 1.10); the loss alone at {STRIPES} stripes: "
        f"{1e3 * middle['alone']:.0f} ms"
    )
    what = f"with the local loss, {name} {height} x {width}, batch {n}, {precision}"
    record("training step", what, middle["with"], middle["without"], "the step without it", ratio=ratio, limit=1.1)


if __name__ == "__main__":
    bench_all_pairs(*(map(int, sys.argv[1:3]) if len(sys.argv) > 2 else (3368, 15913)))
    bench_loss("mobilenet_v2", 128, 64, 128)
    if devices.choose_device().type == "cuda":  # on a CPU minutes a step, of which the loss takes the same 0.1 s
        bench_loss("resnet50", 256, 128, 128)
