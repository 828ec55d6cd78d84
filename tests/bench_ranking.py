"""Time and memory of scoring Market-1501's test set, against sorting the whole matrix.

Run it: python tests/bench_ranking.py. The floor is what most code does: `np.argsort` of the matrix, then a loop
over the queries. Both run in this process. The real identities and cameras are used where ../shared has them,
made-up ones of the same shape elsewhere.
"""

import struct
import time
import zlib
from functools import partial
from pathlib import Path

import numpy as np
from timing import measured, record

from alignedreid_lib.evaluation import compare
from alignedreid_lib.evaluation.matches_and_junk import RankingProblem
from alignedreid_lib.evaluation.ranking import score_ranking
from alignedreid_lib.evaluation.scores import QueryScores, ScoreRow

IDS = Path(__file__).resolve().parents[2] / "shared" / "fixtures" / "market1501_ids"
TYPES = {1: "i1", 2: "u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<f4", 9: "<f8", 12: "<i8", 13: "<u8"}


def read_mat(path: Path) -> np.ndarray:
    """The one numeric matrix of a MATLAB v5 file, flat."""
    data = path.read_bytes()[128:]  # after the header: one element, tag and payload
    kind, size = struct.unpack_from("<II", data)
    data = zlib.decompress(data[8 : 8 + size]) if kind == 15 else data
    position, parts = 8, []
    while position < len(data):  # flags, dimensions, name, values
        kind, size = struct.unpack_from("<II", data, position)
        if kind >> 16:  # a small element: size and payload inside the tag's 8 bytes
            kind, size, start = kind & 0xFFFF, kind >> 16, position + 4
            position += 8
        else:
            start = position + 8
            position = start + (size + 7) // 8 * 8
        parts.append((kind, data[start : start + size]))
    kind, values = parts[3]
    return np.frombuffer(values, TYPES[kind]).astype(np.int64)


def labels(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """(query ids, gallery ids, query cameras, gallery cameras), 3 368 and 15 913: id -1 is dropped."""
    if IDS.is_dir():
        query_ids, gallery_ids = read_mat(IDS / "queryID.mat"), read_mat(IDS / "testID.mat")
        query_cameras, gallery_cameras = read_mat(IDS / "queryCam.mat"), read_mat(IDS / "testCam.mat")
        kept = gallery_ids != -1
        return query_ids, gallery_ids[kept], query_cameras, gallery_cameras[kept]
    print("The real ids are not beside this checkout: made-up ones of the same shape.")
    gallery_ids = np.where(rng.random(15913) < 0.18, 0, rng.integers(1, 751, 15913))
    return rng.integers(1, 751, 3368), gallery_ids, rng.integers(1, 7, 3368), rng.integers(1, 7, 15913)


def argsort_and_loop(distances, query_ids, gallery_ids, query_cameras, gallery_cameras, top=50):
    """The usual way: step AP and CMC of the protocol market1501."""
    indices = np.argsort(distances, axis=1)
    curves, aps = [], []
    for query, order in enumerate(indices):
        match = gallery_ids[order] == query_ids[query]
        hits = match[~(match & (gallery_cameras[order] == query_cameras[query]))]
        if not hits.any():
            continue
        places = np.flatnonzero(hits)
        aps.append(np.mean(np.arange(1, len(places) + 1) / (places + 1)))
        curves.append(np.arange(top) >= places[0])
    return np.mean(curves, axis=0), np.mean(aps)


def main() -> None:
    rng = np.random.default_rng(0)
    ids = labels(rng)
    matches = np.mean(RankingProblem(*ids).find_matches(np.zeros((len(ids[0]), len(ids[1])), np.float32)).counts)
    print(f"{len(ids[0])} queries x {len(ids[1])} gallery images, {matches:.1f} matches a query")
    for name, pull in (("chance", 0.0), ("trained", 0.3)):
        distances = rng.random((len(ids[0]), len(ids[1])), dtype=np.float32)
        distances -= np.float32(pull) * (ids[0][:, None] == ids[1][None, :])
        ours = partial(score_ranking, distances, *ids, average_precision="step")
        scores, fast, fast_memory = measured(ours)  # first: memory once given to a process stays with it
        (cmc, mean_ap), slow, slow_memory = measured(partial(argsort_and_loop, distances, *ids))
        np.testing.assert_allclose(scores.cmc, cmc, atol=2e-3)  # argsort leaves the order of equal ones open
        np.testing.assert_allclose(scores.mean_ap, mean_ap, rtol=1e-3)
        print(f"{name:8} rank-1 {scores.cmc[0]:6.1%}", end="   ")
        print(f"argsort and loop {slow:.2f} s, {slow_memory / 1e6:.0f} MB", end="   ")
        print(f"score_ranking {fast:.2f} s, {fast_memory / 1e6:.0f} MB   {slow / fast:.1f} times faster")
        what = f"{len(ids[0])} x {len(ids[1])}, {name}"
        more = {"ratio": fast / slow, "limit": 0.2, "megabytes": fast_memory / 1e6}
        record("scoring", what, fast, slow, "argsort and a loop", **more)
    begin = time.perf_counter()
    score_ranking(distances, *ids, protocol="cuhk03")
    seconds = time.perf_counter() - begin
    record("scoring", f"{len(ids[0])} x {len(ids[1])}, protocol cuhk03, exact", seconds)
    print(f"protocol cuhk03, exact: {seconds:.1f} s")
    per_query = QueryScores(scores.cmc_per_query[:, 0], scores.ap_per_query)
    row = ScoreRow("", "global", False, *[scores.mean_ap] * 5, len(ids[0]), len(ids[0]), per_query=per_query)
    begin = time.perf_counter()
    compare(row, row)
    seconds = time.perf_counter() - begin
    record("scoring", f"two tests of {len(ids[0])} queries compared", seconds)
    print(f"two tests compared: {seconds:.2f} s (at most 1)")


if __name__ == "__main__":
    main()
