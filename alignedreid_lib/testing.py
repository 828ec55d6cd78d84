"""A network on the people it was not trained with: the val part while it trains, the test parts at the end.

Derived in notebooks/06_training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from alignedreid_lib import images, runs
from alignedreid_lib.config import TrainConfig
from alignedreid_lib.datasets import Dataset, open_dataset
from alignedreid_lib.errors import InputError
from alignedreid_lib.evaluation import evaluate
from alignedreid_lib.features import extract
from alignedreid_lib.model import AlignedReID
from alignedreid_lib.scores import ScoreTable


def validation(config: TrainConfig) -> Callable[[AlignedReID], dict[str, float]]:
    """What `train` calls to validate: the network ranks the val part by its global features.

    Returns:
        a function of the network that gives its `mean_ap` (step) and `rank1`, fractions.

    Raises:
        InputError: the dataset has no validation people.
    """
    dataset = open_dataset(config.folder, "val")
    if not len(dataset):
        raise InputError(f"{config.folder} has no validation people: prepare it with num_val_ids of 1 or more")
    return Validation(config, dataset)


@dataclass
class Validation:
    """See `validation`. A class, so that it can be sent to another process; pictures are decoded where it is called."""

    config: TrainConfig
    dataset: Dataset
    store: images.ImageStore | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"store": None}

    def __call__(self, network: AlignedReID) -> dict[str, float]:
        """mean_ap and rank1 of the val part."""
        config, size = self.config, (self.config.height, self.config.width)
        self.store = self.store or images.ImageStore(self.dataset.paths, size, config.memory_limit, config.workers)
        found = extract(
            network, self.dataset, height=size[0], width=size[1], precision=config.precision, store=self.store
        )
        row = evaluate(found, ("global",), rerank=False, normalize=config.normalize).rows[0]
        return {"mean_ap": row.mean_ap_step, "rank1": row.rank1}


def score(
    network: AlignedReID,
    config: TrainConfig,
    test_sets: Sequence[str],
    distances: Sequence[str] = ("global",),
    rerank: bool = False,
) -> ScoreTable:
    """Test a trained network as its config trained it: its picture size, device, precision and normalisation.

    Args:
        test_sets: datasets of `config.data_root`, by name; of several, each row bears its dataset's.
        distances, rerank: see `evaluation.evaluate`.
    """
    table = ScoreTable([])
    for name in test_sets:
        found = extract(
            network,
            open_dataset(runs.resolve(config.data_root) / name, "test"),
            height=config.height,
            width=config.width,
            device=config.device,
            precision=config.precision,
        )
        shown = name if len(test_sets) > 1 else ""
        table += evaluate(found, distances, rerank, name=shown, normalize=config.normalize)
    return table
