"""Scoring a gallery of a million, in chunks, against the bare distances.

    python tests/bench_streaming.py [GALLERY]

Market-1501's 3 368 queries, its gallery among a million images, features 256 wide. The matrix would take 13 GB. The
floor is the product of the features alone, chunk by chunk.
"""

import sys
import time

import numpy as np
import torch
from bench_ranking import labels
from timing import peak, record

from alignedreid_lib.evaluation.streaming import score_stream


def main(size: int = 1_000_000, channels: int = 256) -> None:
    """Run and print."""
    rng = np.random.default_rng(0)
    query_ids, known_ids, query_cameras, known_cameras = labels(rng)
    centres = rng.normal(size=(1600, channels)).astype(np.float32)
    gallery = rng.standard_normal((size, channels), dtype=np.float32)
    gallery_ids = np.full(size, 0)  # distractors, but for the known ones
    gallery_cameras = rng.integers(1, 7, size)
    gallery_ids[: len(known_ids)], gallery_cameras[: len(known_ids)] = known_ids, known_cameras
    gallery[: len(known_ids)] = centres[known_ids] + 1.2 * gallery[: len(known_ids)]
    queries = centres[query_ids] + 1.2 * rng.standard_normal((len(query_ids), channels), dtype=np.float32)
    x, y = torch.from_numpy(queries), torch.from_numpy(gallery)
    norms = y.square().sum(1)

    def distances(begin: int, end: int) -> torch.Tensor:  # squared, less a number for each query: the same order
        return torch.addmm(norms[begin:end], x, y[begin:end].T, alpha=-2)

    began = time.perf_counter()
    for begin in range(0, size, 16384):
        distances(begin, min(begin + 16384, size))
    floor = time.perf_counter() - began
    people = (query_ids, gallery_ids, query_cameras, gallery_cameras)
    began = time.perf_counter()
    scores = score_stream(distances, *people)
    seconds = time.perf_counter() - began
    pairs = len(queries) * size
    print(f"{len(queries)} queries x {size} gallery images, {channels} channels: rank-1 {scores.cmc[0]:.1%}")
    print(f"{seconds:.1f} s, {seconds / pairs * 1e9:.2f} ns a pair", end="; ")
    print(f"bare distances {floor:.1f} s; ratio {seconds / floor:.1f}")
    what = f"{len(queries)} x {size} in chunks, distances included"
    record("scoring", what, seconds, floor, "bare distances", ratio=seconds / floor, megabytes=peak())
    print(
        f"{peak():.0f} MB at the peak of the process, {gallery.nbytes / 1e6:.0f} MB of features included (at most 3000)"
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
