"""What the chapters share: the embedded datasets and the book's own trained model, each made at the first call."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

from alignedreid_lib import datasets, runs, synthetic, training
from alignedreid_lib.datasets.sources import SOURCES
from alignedreid_lib.errors import InputError
from alignedreid_lib.evaluation.scores import ScoreRow, ScoreTable
from alignedreid_lib.model import AlignedReID
from alignedreid_lib.training import TrainConfig, TrainResult

DATA_ROOT = "data/synthetic"
RUN_DIR = "runs/book/model"
RESULTS = "notebooks/results"

# The book's model: small enough to train on two cores in a minute.
CONFIG = TrainConfig(
    data_root=DATA_ROOT,
    dataset="market1501",
    height=64,
    width=32,
    backbone="resnet18.layer3",  # layer4 would make 2 x 1 cells of 64 x 32 pixels, with three quarters of all weights
    weights=None,
    ids_per_batch=16,
    images_per_id=4,
    id_weight=1.0,  # from random weights the classifier gives a useful gradient while the triplets still collapse
    margin=2.0,  # its features have a length of about ten; 0.3 would soon be reached
    base_lr=2e-3,
    total_epochs=18,
    decay_at_epoch=13,
    precision="float32",  # the book's numbers do not depend on what the processor multiplies fastest
)
# The book's model needs images as in its training, also in `features.extract`.
AS_TRAINED: dict[str, Any] = {"height": CONFIG.height, "width": CONFIG.width, "precision": CONFIG.precision}


class BookModel(NamedTuple):
    """The book's trained network, in evaluation mode, and the result of its training."""

    network: AlignedReID
    result: TrainResult

    @property
    def origin(self) -> str:
        """A sentence: the model was trained now, or it was found."""
        total = len(self.result.metrics)
        if self.result.resumed_at == total:
            return f"Found the book's model, trained earlier for {total} epochs."
        return f"Trained the book's model now: epochs {self.result.resumed_at + 1} to {total}."


def archive(layout: str = "market1501") -> Path:
    """The embedded raw archive of a layout, in data/synthetic/raw; drawn at the first call."""
    path = runs.resolve(DATA_ROOT) / "raw" / SOURCES[layout][0]
    return path if path.exists() else synthetic.make_archive(path, layout)


def dataset_folder(layout: str = "market1501") -> Path:
    """The embedded dataset of a layout in the unified layout, in data/synthetic; prepared at the first call."""
    source = archive(layout)
    split_file = source.with_name("re_ranking_train_test_split.pkl") if layout == "cuhk03" else None
    return datasets.prepare(layout, source, runs.resolve(DATA_ROOT), split_file, num_val_ids=30)


def prepare_data(config: TrainConfig, archive: str = "", **settings: Any) -> tuple[str, ...]:
    """Make the datasets of a full-run notebook, unless they exist; without an archive, data/synthetic has drawn people.

    Args:
        config: the training's settings; they name the datasets to train on.
        archive, settings: see `datasets.provide`.

    Returns:
        the names of the datasets to test on.

    Raises:
        InputError: see `datasets.provide`.
    """
    draw = dataset_folder if runs.resolve(config.data_root) == runs.resolve(DATA_ROOT) else None
    return datasets.provide(config.data_root, config.dataset, config.train_part, archive, draw=draw, **settings)


def model() -> BookModel:
    """The book's model: the first call trains it (a minute), later calls find it."""
    dataset_folder(CONFIG.dataset)
    result = training.train(CONFIG, RUN_DIR)
    return BookModel(training.load_network(CONFIG, result.weights), result)


def gpu_checks() -> list[dict[str, Any]]:
    """The results of `make gpu-check` on GPUs, in notebooks/results: a dict for each device.

    Each has `device`, `precision`, the versions, and `rows`: dicts with `check`, `what`, `value`, `unit`.

    Raises:
        InputError: a file of results is damaged.
    """
    found = []
    for path in sorted(runs.resolve(RESULTS).glob("gpu_check_*.json")):
        content = runs.read_json(path)
        if not isinstance(content, dict) or not content.keys() >= {"kind", "device", "rows"}:
            raise InputError(f"{path}: not written by `make gpu-check`; remove it, or restore it")
        if content["kind"] != "cpu":
            found.append(content)
    return found


def results_of(preset: str, results: str | Path = RESULTS) -> list[dict[str, Any]]:
    """The results of a preset's finished runs: its own, then those with different seeds; none if it was not yet run.

    Args:
        preset: its name.
        results: the folder of results.

    Raises:
        InputError: a file of results is damaged.
    """
    folder = runs.resolve(results)
    files = [folder / f"{preset}.json", *sorted(folder.glob(f"{preset}_seed*.json"))]
    return [runs.read_json(file) for file in files if file.exists()]


def score_rows(
    preset: str, distance: str = "global", reranked: bool = False, query: str = "", results: str | Path = RESULTS
) -> list[ScoreRow]:
    """The rows of one test in the results of a preset's finished runs: one for each seed and model.

    Args:
        preset, results: see `results_of`.
        distance, reranked: see `ScoreRow`.
        query: "" for single queries, "multi-query" for pooled ones.

    Raises:
        InputError: a file of results is damaged.
    """
    found = [row for run in results_of(preset, results) for row in ScoreTable.from_dict({"rows": run["scores"]}).rows]
    wanted = (distance, reranked, query)
    return [row for row in found if (row.distance, row.reranked, re.sub(r"^model \d+(, )?", "", row.name)) == wanted]
