"""Time and memory of re-ranking at Market-1501's size, against the bare search for neighbours.

    python tests/bench_reranking.py [QUERIES GALLERY CHANNELS]

3 368 queries and 15 913 gallery images with features 2 048 wide, in clusters as people are. The floor is the plain
search for neighbours: the product of all features with all, block by block, and the 21 nearest of each of the 19 281
rows. Ours computes half of the products, since the matrix is symmetric. Both run in this process. A subset is compared
with the dense form of the published method (loops, `tests/oracles.py`).
"""

import sys

import numpy as np
import oracles
import torch
from timing import peak, record, timed

from alignedreid_lib.devices import choose_device
from alignedreid_lib.evaluation.reranking import rerank


def features(count: int, people: int, channels: int, seed: int) -> torch.Tensor:
    """[count, channels]: each a person's point and some noise, all above 0 as after a ReLU."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(people, channels, generator=generator)
    generator.manual_seed(seed)
    chosen = torch.randint(people, (count,), generator=generator)
    return (centres[chosen] + 0.9 * torch.randn(count, channels, generator=generator)).relu_()


def floor(whole: torch.Tensor, depth: int, step: int) -> torch.Tensor:
    """Product and nearest, block by block into one buffer."""
    norms = whole.square().sum(dim=1)
    buffer = torch.empty(step, len(whole), device=whole.device)
    found = torch.empty(len(whole), depth, dtype=torch.int64, device=whole.device)
    for begin in range(0, len(whole), step):
        rows = whole[begin : begin + step]
        block = torch.addmm(norms, rows, whole.T, alpha=-2, out=buffer[: len(rows)])
        found[begin : begin + step] = block.topk(depth, dim=1, largest=False).indices
    return found


def main(num_queries: int = 3368, num_gallery: int = 15913, channels: int = 2048) -> None:
    """Run and print."""
    device = choose_device()
    queries = features(num_queries, 750, channels, 1).to(device)
    gallery = features(num_gallery, 750, channels, 2).to(device)
    whole = torch.cat([queries, gallery])
    step = max(1, (128 << 20) // (4 * len(whole)))

    def bare() -> None:
        floor(whole, 21, step)

    def ours() -> None:
        rerank(queries, gallery)

    rounds = 2 if device.type == "cpu" else 4
    pairs = [(timed(bare, device), timed(ours, device)) for _ in range(rounds)]  # in turns: a machine drifts
    floors, times = zip(*pairs, strict=True)
    ratio = min(times) / min(floors)
    print(f"{num_queries} queries x {num_gallery} gallery images, {channels} channels, on {device.type}")
    print(f"floor {min(floors):.2f} s, re-ranking {min(times):.2f} s, ratio {ratio:.2f} (at most 1.0)")
    print(f"{peak():.0f} MB at the peak of the process, features, floor and torch included (at most 2500)")
    what, floor_is = f"{num_queries} x {num_gallery}, {channels} channels", "product and the 21 nearest of every row"
    record("re-ranking", what, min(times), min(floors), floor_is, ratio=ratio, limit=1.0, megabytes=peak())
    q, g = queries[:30].cpu(), gallery[:400].cpu()
    some = torch.cat([q, g]).numpy().astype(float)
    squared = (some**2).sum(1)[:, None] + (some**2).sum(1)[None] - 2 * some @ some.T
    expected = oracles.rerank(np.sqrt(np.maximum(squared, 0)), 30, 20, 6, 0.3)
    print(f"subset of 30 x 400 against loops: largest difference {np.abs(rerank(q, g) - expected).max():.1e}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
