"""Market-1501's box errors, measured, and what they cost each distance. Chapter 13 shows the results.

    python notebooks/book/box_errors.py RUN [ARCHIVE]

RUN is the folder of a finished training with a local loss, ARCHIVE the release of Market-1501. Every detected test box
with a known person has a box of the same shot that was drawn by hand; the queries, too. `notebooks/results/
box_errors.json` has the errors and the scores. Images stay in memory.
"""

import dataclasses
import re
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alignedreid_lib import book, devices, evaluation, runs
from alignedreid_lib.batches import images
from alignedreid_lib.datasets import registration
from alignedreid_lib.datasets.partitions import GALLERY, QUERY
from alignedreid_lib.errors import InputError
from alignedreid_lib.evaluation.features import Features
from alignedreid_lib.evaluation.scores import QueryScores, ScoreRow
from alignedreid_lib.search.embed import embed
from finished_run import open_finished

ARCHIVE = "data/raw/Market-1501-v15.09.15.zip"
DISTANCES = ("global", "rigid", "local", "global+rigid", "global+local")
BY_HAND, DETECTED = "by hand", "detected"
TESTS = ((BY_HAND, BY_HAND), (DETECTED, BY_HAND), (BY_HAND, DETECTED), (DETECTED, DETECTED))  # queries, gallery
PAIRS = (
    ("rigid", "local"),
    ("global", "local"),
    ("global+rigid", "global+local"),
)  # compared: the second over the first
SHOT = re.compile(r"(?:^|/)(bounding_box_test|gt_bbox|query)/((?!0000)(\d{4})_c(\d+)s\d+_\d+)_\d+\.jpg$")
PARTS = 4  # quarters of the queries, by the size of their box error


@dataclasses.dataclass(frozen=True)
class Shots:
    """N shots of the test people, each in the detector's box and in the one drawn by hand."""

    detected: Tensor  # uint8 [N, 3, h, w]
    by_hand: Tensor  # likewise
    ids: NDArray[np.int64]
    cameras: NDArray[np.int64]
    asked: NDArray[np.bool_]  # the shots of Market-1501's queries


def read_shots(archive: Path) -> Shots:
    """The shots that have both boxes; of a shot in several detected boxes, the first by name.

    Raises:
        InputError: the archive has no such shots.
    """
    found: dict[str, dict[str, str]] = {"bounding_box_test": {}, "gt_bbox": {}, "query": {}}
    people, cameras = {}, {}
    with zipfile.ZipFile(archive) as release:
        for name in sorted(release.namelist()):
            if match := SHOT.search(name):
                found[match[1]].setdefault(match[2], name)
                people[match[2]], cameras[match[2]] = int(match[3]), int(match[4])
        shots = sorted(found["bounding_box_test"].keys() & found["gt_bbox"].keys())
        if not shots:
            raise InputError(f"{archive}: no shot is in bounding_box_test and in gt_bbox; give Market-1501's release")

        def pixels(folder: str) -> Tensor:
            read = []
            for shot in shots:
                with release.open(found[folder][shot]) as file, images.Image.open(file) as picture:
                    read.append(images.pixels_of(picture))
            return torch.stack(read)

        return Shots(
            pixels("bounding_box_test"),
            pixels("gt_bbox"),
            np.array([people[shot] for shot in shots]),
            np.array([cameras[shot] for shot in shots]),
            np.array([shot in found["query"] for shot in shots]),
        )


def as_features(sides: dict[str, Features], shots: Shots, queries: str, gallery: str) -> Features:
    """The queries' features of one kind of box, and all shots' features of the other as a gallery."""
    asked, searched = sides[queries][shots.asked], sides[gallery]
    return Features(
        torch.cat([asked.global_features, searched.global_features]),
        torch.cat([asked.local_features, searched.local_features]),
        np.concatenate([shots.ids[shots.asked], shots.ids]),
        np.concatenate([shots.cameras[shots.asked], shots.cameras]),
        np.repeat([QUERY, GALLERY], [len(asked), len(searched)]),
        asked.names + searched.names,
    )


def sizes_of_queries(errors: NDArray[np.float64], shots: Shots, queries: str, gallery: str) -> NDArray[np.float64]:
    """The box error each query meets: its own if it was detected, else the mean over its matches'. [Q]."""
    own = errors[shots.asked]
    if queries == DETECTED or gallery == BY_HAND:
        return own
    matches = (shots.ids[shots.asked][:, None] == shots.ids) & (shots.cameras[shots.asked][:, None] != shots.cameras)
    with np.errstate(invalid="ignore"):
        return (matches @ errors) / matches.sum(1)


def part_of(row: ScoreRow, chosen: NDArray[np.bool_]) -> ScoreRow:
    """A row of some of the queries alone: rank-1 and mAP (step) are those of the chosen ones."""
    if row.per_query is None or row.per_query.ids is None:
        raise ValueError("the row has no scores per query")
    rank1, ap, ids = row.per_query.rank1[chosen], row.per_query.ap[chosen], row.per_query.ids[chosen]
    return dataclasses.replace(
        row,
        rank1=float(np.nanmean(rank1)),
        mean_ap_step=float(np.nanmean(ap)),
        num_queries=len(ap),
        num_valid=int((~np.isnan(ap)).sum()),
        per_query=QueryScores(rank1, ap, ids),
    )


def score(sides: dict[str, Features], shots: Shots, errors: NDArray[np.float64]) -> list[dict[str, Any]]:
    """Each test, whole and in quarters by the size of the box error: scores by distance, and what alignment adds."""
    tests = []
    for queries, gallery in TESTS:
        table = evaluation.evaluate(as_features(sides, shots, queries, gallery), DISTANCES, rerank=False)
        rows = {row.distance: row for row in table.rows}
        sizes = sizes_of_queries(errors, shots, queries, gallery)
        quarter = np.searchsorted(np.nanquantile(sizes, np.arange(1, PARTS) / PARTS), sizes)
        parts = {"all": np.ones(len(sizes), bool)} | {str(k + 1): quarter == k for k in range(PARTS)}
        for part, chosen in parts.items():
            some = {distance: part_of(row, chosen) for distance, row in rows.items()}
            entry: dict[str, Any] = {"queries": queries, "gallery": gallery, "quarter": part}
            entry |= {"num_queries": int(chosen.sum()), "error": float(np.nanmean(sizes[chosen]))}
            entry |= {"rank1": {name: row.rank1 for name, row in some.items()}}
            entry |= {"mean_ap_step": {name: row.mean_ap_step for name, row in some.items()}}
            found = {pair: evaluation.compare(some[pair[0]], some[pair[1]]).rows[-1] for pair in PAIRS}
            entry["differences"] = [
                {"over": a, "of": b, "difference": row.difference, "low": row.low, "high": row.high}
                for (a, b), row in found.items()
            ]
            tests.append(entry)
            print(queries, gallery, part, entry["mean_ap_step"], flush=True)
    return tests


def quantiles(values: NDArray[np.float64]) -> list[float]:
    """201 quantiles, rounded."""
    return [round(float(value), 4) for value in np.quantile(values, np.linspace(0, 1, 201))]


def measure(shots: Shots) -> tuple[dict[str, Any], NDArray[np.float64]]:
    """The box errors as the results file has them, and the one of each shot."""
    found = registration.register(shots.detected, shots.by_hand)
    errors = found.edge_errors.double().numpy()
    content = {
        "pairs": len(errors),
        "sure": int((found.correlation > 0.9).sum()),
        "edge": quantiles(errors),
        "down": quantiles(found.shift[:, 0].double().numpy()),
        "height": quantiles(found.scale[:, 0].double().numpy()),
    }
    return content, errors


def main(run: str, archive: str = ARCHIVE) -> None:
    """Measure and write.

    Raises:
        InputError: not a finished run, or not Market-1501's release; nothing is written.
    """
    network, config = open_finished(run)
    shots = read_shots(runs.resolve(archive))
    print(f"{len(shots.ids)} shots, {shots.asked.sum()} of them queries", flush=True)
    errors, sizes = measure(shots)
    how: dict[str, Any] = {"height": config.height, "width": config.width, "precision": "float32"}
    sides = {BY_HAND: embed(network, shots.by_hand, **how), DETECTED: embed(network, shots.detected, **how)}
    folder = runs.resolve(run)
    content = {"run": folder.name, "trained": runs.read_json(folder / "results.json")["parts"], "errors": errors}
    content |= {"tests": score(sides, shots, sizes), **runs.provenance(devices.choose_device("cpu"))}
    runs.write_json(runs.resolve(book.RESULTS) / "box_errors.json", content)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except InputError as error:
        sys.exit(str(error))
