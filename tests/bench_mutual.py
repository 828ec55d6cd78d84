"""What mutual learning costs: a step of two models over a step of one of them, on the same batch.

    python tests/bench_mutual.py [backbone ...]

In a process of its own, in turns, medians of the rounds: the memory that other measurements leave behind costs the
larger step more than the smaller.
"""

import dataclasses
import statistics
import sys

import torch
from bench_training import CASES
from timing import record, timed

from alignedreid_lib import training

WARM_UP, ROUNDS = 5, 7  # memory is still asked of the system in the first steps


def bench(name: str) -> None:
    height, width, people, each, _ = CASES[name]
    config = training.TrainConfig(
        backbone=name, weights=None, height=height, width=width, ids_per_batch=people, images_per_id=each
    )
    pair = dataclasses.replace(config, num_models=2, global_mutual_weight=1.0, base_lr=1e-9)
    learners = [training.make_learner(pair, k, 1) for k in (0, 1)]
    for learner in learners:
        learner.network.train()
    batch = torch.randint(0, 256, (people * each, 3, height, width), dtype=torch.uint8)
    labels = torch.arange(people).repeat_interleave(each)
    device = learners[0].device

    def step(count: int) -> float:
        return timed(lambda: training.mutual_step(learners[:count], batch, labels, pair), device)

    rounds = [(step(2), step(1)) for _ in range(WARM_UP + ROUNDS)][WARM_UP:]
    both, single = (statistics.median(column) for column in zip(*rounds, strict=True))
    ratio = statistics.median(a / b for a, b in rounds)
    print(f"{name}: step of two models {both:.3f} s, of one {single:.3f} s, ratio {ratio:.2f} (at most 2.1)")
    what = f"two models, {name} {height} x {width}, batch {people * each}"
    record("mutual step", what, both, single, "a step of one model", ratio=ratio, limit=2.1)


if __name__ == "__main__":
    for backbone in sys.argv[1:] or CASES:
        bench(backbone)
