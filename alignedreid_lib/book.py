"""What the chapters share: the embedded datasets and the book's own trained model, each made once and then found."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from alignedreid_lib import datasets, runs, synthetic, training
from alignedreid_lib.datasets.combine import COMBINED
from alignedreid_lib.datasets.making import read_manifest
from alignedreid_lib.datasets.partitions import GALLERY, QUERY, Partitions, TooFewPeopleError
from alignedreid_lib.datasets.prepare import SOURCES
from alignedreid_lib.errors import InputError
from alignedreid_lib.model import AlignedReID, load_weights
from alignedreid_lib.runs import typed
from alignedreid_lib.training import TrainConfig, TrainResult

log = logging.getLogger(__name__)

DATA_ROOT = "data/synthetic"
RUN_DIR = "runs/book/model"
ARCHIVES = {
    "market1501": "Market-1501-v15.09.15.zip",
    "cuhk03": "cuhk03_release.zip",
    "dukemtmc": "DukeMTMC-reID.zip",
}

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
    id_weight=1.0,  # from random weights the classifier's gradient shows the way while the triplets still collapse
    margin=2.0,  # its features are some ten long; beside them 0.3 is soon reached
    base_lr=2e-3,
    total_epochs=18,
    decay_at_epoch=13,
    precision="float32",  # the book's numbers do not depend on what the processor multiplies fastest
)
# How `features.extract` shows pictures to the book's model: as in its training.
AS_TRAINED: dict[str, Any] = {"height": CONFIG.height, "width": CONFIG.width, "precision": CONFIG.precision}


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
    config: TrainConfig,
    archive: str = "",
    combined_of: Sequence[str] | str = (),
    test_sets: Sequence[str] | str = (),
    num_val_ids: int | None = None,
    pattern: str = "",
    test_share: float | None = None,
) -> tuple[str, ...]:
    """Make the datasets that a full-run notebook trains and tests on, where they are not there yet.

    Args:
        archive: a release archive, or the folder that holds several under their published names; for the dataset
            `folder` the pictures' folder or a CSV; "" for the embedded people.
        combined_of: the datasets that `combined` is made of; () for the original's three.
        test_sets: the datasets to test on; () for the one trained on, or those that `combined` is made of.
        num_val_ids: people of each training set to validate with. None is 100 for a release, or 0 if it has too few
            people for that and the training does not need them; 0 for `folder`.
        pattern, test_share: of the dataset `folder`, see `datasets.prepare`; "" and None for its defaults.

    Returns:
        the names of the datasets to test on.

    Raises:
        InputError: no archive for a dataset that is not there, whatever is wrong with it, a dataset that was made of
            another archive or with other settings, or a test set without test people.
    """
    trained_on: tuple[str, ...] = (config.dataset,)
    if config.dataset == "combined":
        trained_on = typed("combined_of", combined_of, tuple[str, ...]) or COMBINED
    tested = typed("test_sets", test_sets, tuple[str, ...]) or trained_on
    root = runs.resolve(config.data_root)
    own = {key: value for key, value in (("pattern", pattern), ("test_share", test_share)) if value not in ("", None)}
    if own and "folder" not in trained_on + tested:
        raise InputError(f"{min(own)} is for the dataset folder; leave it out with {config.dataset}")
    for name in dict.fromkeys(trained_on + tested):
        asked = dict(own) if name == "folder" else {}
        if num_val_ids is not None and name in trained_on:
            asked["num_val_ids"] = num_val_ids
        try:
            _prepare_one(config, name, archive, asked, needs_val=name in trained_on and config.train_part == "train")
        except OSError as error:  # a name that no file can have
            reason = f"{error.filename or archive}: {error.strerror or error}"
            raise InputError(f"{reason}; give another archive or data_root") from error
        made = read_manifest(root / name) or {}
        for key, value in asked.items():
            if made.get(key) != value:
                raise InputError(
                    f"{root / name} has {key}={made.get(key)!r}, not {value!r}; "
                    "move it away to make it anew, or give another data_root"
                )
    if config.dataset == "combined":
        datasets.combine([root / name for name in trained_on], root)
    for name in tested:
        _check_test_part(root / name)
    return tested


def _prepare_one(config: TrainConfig, name: str, archive: str, asked: dict[str, Any], needs_val: bool) -> None:
    """Make a dataset from its archive; one that is there is only held against its archive, if both know each other."""
    root, layout, place = runs.resolve(config.data_root), name.split("/")[0], runs.resolve(archive)
    if os.path.isfile(place) and layout != config.dataset.split("/")[0]:
        place = place.parent  # the file is the training set's; another test set's lies beside it
    if (root / name / "partitions.pkl").exists():
        made = read_manifest(root / name)
        file = place / SOURCES[layout][0] if layout in SOURCES and os.path.isdir(place) else place
        if made and archive and os.path.exists(file) and not made.get("split_file"):
            known = ("num_val_ids", "pattern", "test_share", "seed")
            datasets.prepare(layout, place, root, **{key: made[key] for key in known if key in made})
    elif archive and layout == "folder" != config.dataset:
        raise InputError(f"{root / name} is not there; train on it, or make it with datasets.prepare, before you test")
    elif archive:
        try:
            datasets.prepare(layout, place, root, **asked)
        except TooFewPeopleError as error:
            if needs_val or "num_val_ids" in asked:
                raise InputError(f"{place}: {error}") from None
            log.warning("%s: too few people to set some aside for validation; all are trained on", layout)
            datasets.prepare(layout, place, root, **asked, num_val_ids=0)
    elif root == runs.resolve(DATA_ROOT) and layout in ARCHIVES:
        dataset_folder(layout)
    else:
        raise InputError(f"{root / name} is not there; prepare it, or say in `archive` what to make it from")


def _check_test_part(folder: Path) -> None:
    """Raises InputError, before a training, where its end would find nothing to test on."""
    file = folder / "partitions.pkl"
    if file.is_file() and not {QUERY, GALLERY} <= set(Partitions.load(file).test_marks or ()):
        raise InputError(
            f"{folder} has no people to test on; name others in test_sets, or prepare it with a larger test_share"
        )
    tested = datasets.open_dataset(folder, "test")
    if tested.marks is not None and tested.cameras_known:
        seen = {
            mark: {
                *zip(
                    tested.ids[tested.marks == mark].tolist(),
                    tested.cameras[tested.marks == mark].tolist(),
                    strict=True,
                )
            }
            for mark in (QUERY, GALLERY)
        }
        elsewhere = {person: {camera for one, camera in seen[GALLERY] if one == person} for person, _ in seen[QUERY]}
        if not any(elsewhere[person] - {camera} for person, camera in seen[QUERY]):
            raise InputError(
                f"{folder}: no test person was seen by two cameras, so that no query has an answer; give the pictures "
                "their cameras, or prepare a folder without them"
            )


def model() -> BookModel:
    """The book's model: trained by whoever asks first (a minute), found by the others."""
    dataset_folder(CONFIG.dataset)
    result = training.train(CONFIG, RUN_DIR)
    return BookModel(load(CONFIG, result.weights), result)


def load(config: TrainConfig, weights: Path, k: int = 0) -> AlignedReID:
    """The network of a finished run, of several models number k from 0 on, in evaluation mode."""
    backbone = config.backbones[k] if config.backbones else config.backbone
    network = AlignedReID(backbone, None, None, config.local_channels, config.last_stride)
    load_weights(network, weights)  # an identity head in the file is left over: the test people are none of its own
    return network.eval()
