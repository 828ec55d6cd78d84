"""What the chapters share: the embedded datasets and the book's own trained model, each made once and then found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from alignedreid_lib import datasets, runs, synthetic, training
from alignedreid_lib.datasets.combine import COMBINED
from alignedreid_lib.errors import InputError
from alignedreid_lib.model import AlignedReID, load_weights
from alignedreid_lib.training import TrainConfig, TrainResult

DATA_ROOT = "data/synthetic"
RUN_DIR = "runs/book/model"
ARCHIVES = {
    "market1501": "Market-1501-v15.09.15.zip",
    "cuhk03": "cuhk03_release.zip",
    "dukemtmc": "DukeMTMC-reID.zip",
}

# The book's model: small enough for two cores and a minute.
CONFIG = TrainConfig(
    data_root=DATA_ROOT,
    dataset="market1501",
    height=64,
    width=32,
    backbone="resnet18",
    weights=None,
    ids_per_batch=16,
    images_per_id=4,
    id_weight=1.0,  # from random weights the classifier's gradient shows the way while the triplets still collapse
    base_lr=1e-3,
    total_epochs=22,
    decay_at_epoch=12,
    precision="float32",  # the book's numbers do not depend on what the processor multiplies fastest
)


class BookModel(NamedTuple):
    """The book's trained network, in evaluation mode, and how it came about."""

    network: AlignedReID
    result: TrainResult

    @property
    def origin(self) -> str:
        """One sentence that says whether the model was trained now or found."""
        total = len(self.result.metrics)
        if self.result.resumed_at == total:
            return f"Found the book's model, trained earlier for {total} epochs."
        return f"Trained the book's model now: epochs {self.result.resumed_at + 1} to {total}."


def archive(layout: str = "market1501") -> Path:
    """The embedded raw archive of a layout, in data/synthetic/raw; drawn at the first call."""
    path = runs.resolve(DATA_ROOT) / "raw" / ARCHIVES[layout]
    return path if path.exists() else synthetic.make_archive(path, layout)


def dataset_folder(layout: str = "market1501") -> Path:
    """The embedded dataset of a layout in the unified layout, in data/synthetic; prepared at the first call."""
    source = archive(layout)
    split_file = source.with_name("re_ranking_train_test_split.pkl") if layout == "cuhk03" else None
    return datasets.prepare(layout, source, runs.resolve(DATA_ROOT), split_file, num_val_ids=30)


def prepare_data(
    config: TrainConfig, archive: str = "", combined_of: Sequence[str] = (), test_sets: Sequence[str] = ()
) -> tuple[str, ...]:
    """Make the datasets that a full-run notebook trains and tests on, where they are not there yet.

    Args:
        archive: a release archive, or the folder that holds several under their published names; "" for the embedded
            people.
        combined_of: the datasets that `combined` is made of; () for the original's three.
        test_sets: the datasets to test on; () for the one trained on, or those that `combined` is made of.

    Returns:
        the names of the datasets to test on.

    Raises:
        InputError: no archive for a dataset that is not there, or whatever is wrong with it.
    """
    combined = config.dataset == "combined"
    trained_on = tuple(combined_of) or COMBINED if combined else (config.dataset,)
    tested = tuple(test_sets) or trained_on
    root = runs.resolve(config.data_root)
    for name in dict.fromkeys(trained_on + tested):
        if (root / name / "partitions.pkl").exists():
            continue
        layout = name.split("/")[0]
        if archive:
            place = runs.resolve(archive)
            if place.is_file() and layout != config.dataset.split("/")[0]:
                place = place.parent  # the file is the training set's; another test set's lies beside it
            datasets.prepare(layout, place, root)
        elif root == runs.resolve(DATA_ROOT):
            dataset_folder(layout)
        else:
            raise InputError(f"{root / name} is not there; prepare it, or say in `archive` what to make it from")
    if combined:
        datasets.combine([root / name for name in trained_on], root)
    return tested


def model() -> BookModel:
    """The book's model: trained by whoever asks first (about a minute), found by the others."""
    dataset_folder(CONFIG.dataset)
    result = training.train(CONFIG, RUN_DIR)
    return BookModel(load(CONFIG, result.weights), result)


def load(config: TrainConfig, weights: Path, k: int = 0) -> AlignedReID:
    """The network of a finished run, of several models number k from 0 on, in evaluation mode."""
    backbone = config.backbones[k] if config.backbones else config.backbone
    network = AlignedReID(backbone, None, None, config.local_channels, config.last_stride)
    load_weights(network, weights)  # an identity head in the file is left over: the test people are none of its own
    return network.eval()
