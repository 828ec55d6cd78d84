"""What a second process brings: images/s of two over images/s of one, a thread each, of the same batch.

    python tests/bench_processes.py

MobileNetV2 at 128 x 64, 32 people x 4 pictures. One process embeds all 128; two embed 64 each, exchange their features,
compute the same loss and add up their gradients. In turns, so that a drifting machine touches both.
"""

import statistics
import time

import torch
from timing import record

from alignedreid_lib.training import TrainConfig, distributed, launching, step
from alignedreid_lib.training import learner as making

ROUNDS, WARM_UP, STEPS = 3, 5, 9  # memory is still asked of the system in the first steps
CONFIG = TrainConfig(backbone="mobilenet_v2", weights=None, height=128, width=64, device="cpu")


def seconds_a_step() -> float:
    """The median step of this process's share, one thread."""
    torch.set_num_threads(1)
    learner = making.make_learner(CONFIG, 0, num_ids=1)
    learner.network.train()
    share = CONFIG.ids_per_batch * CONFIG.images_per_id // distributed.count()
    batch = torch.randint(0, 256, (share, 3, CONFIG.height, CONFIG.width), dtype=torch.uint8)
    labels = torch.arange(CONFIG.ids_per_batch).repeat_interleave(CONFIG.images_per_id)
    taken = []
    for _ in range(WARM_UP + STEPS):
        begun = time.perf_counter()
        step.mutual_step([learner], batch, labels, CONFIG)
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken[WARM_UP:])


def main() -> None:
    """One and two, in turns; the median of the rounds."""
    rounds = [[launching.launch(count, "cpu", seconds_a_step) for count in (1, 2)] for _ in range(ROUNDS)]
    one, two = (statistics.median(column) for column in zip(*rounds, strict=True))
    gain = statistics.median(a / b for a, b in rounds)
    print(f"batch of 128, one process {one:.3f} s, two {two:.3f} s: {gain:.2f} times the images/s (at least 1.7)")
    what = "batch of 128 by two processes, mobilenet_v2 128 x 64, a thread each"
    record("several processes", what, two, one, "the same batch by one", ratio=1 / gain, limit=1 / 1.7)


if __name__ == "__main__":
    main()
