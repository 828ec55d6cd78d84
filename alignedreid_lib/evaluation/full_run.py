"""A full-run notebook's plan, validation and test. Derived in notebooks/06_training."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from alignedreid_lib import devices, runs
from alignedreid_lib.batches import images
from alignedreid_lib.datasets import Dataset, open_dataset
from alignedreid_lib.datasets.partitions import MULTI_QUERY
from alignedreid_lib.errors import InputError
from alignedreid_lib.evaluation.evaluate_features import DISTANCES, evaluate
from alignedreid_lib.evaluation.features import Features, extract
from alignedreid_lib.evaluation.scores import ScoreTable, average
from alignedreid_lib.model import AlignedReID
from alignedreid_lib.model.backbones import has_map
from alignedreid_lib.runs import check_rules, check_types, typed
from alignedreid_lib.training import TrainResult, load_network
from alignedreid_lib.training.checkpoint import as_begun
from alignedreid_lib.training.config import TrainConfig, max_seed


@dataclass(frozen=True)
class Plan:
    """What a full-run notebook is given besides its TrainConfig: the data to prepare and the test to make.

    Raises:
        InputError: a value of a wrong type, or one that cannot work; the message names it.
    """

    run_dir: str

    # The data, see `book.prepare_data`.
    archive: str = ""
    num_val_ids: Annotated[int, Field(ge=0)] | None = None
    pattern: str = ""
    test_share: Annotated[float, Field(ge=0, le=1)] | None = None
    combined_of: tuple[str, ...] = ()
    test_sets: tuple[str, ...] = ()

    # The test.
    test_distances: tuple[str, ...] = ("global",)  # see `evaluation.evaluate`
    test_rerank: bool = False
    test_multi_query: Literal["", "average", "max"] = ""  # adds rows with pooled queries, for Market-1501
    only_test: tuple[str, ...] = ()  # files of weights to test; nothing is trained then
    study_seeds: tuple[Annotated[int, Field(ge=0, le=max_seed(2))], ...] = ()  # one per training of chapter 07's study

    def __post_init__(self) -> None:
        check_types(self)
        runs.resolve(self.run_dir)  # refuses what cannot be a path
        absent = [file for file in self.only_test if not (file and os.path.isfile(runs.resolve(file)))]
        rules = {
            "run_dir": (bool(self.run_dir.strip()), "the name of a folder"),
            "test_distances": (
                bool(self.test_distances)
                and set(self.test_distances) <= set(DISTANCES)
                and len(set(self.test_distances)) == len(self.test_distances),
                f"one or several of {', '.join(DISTANCES)}, each once; several are written [global,local]",
            ),
            "only_test": (not absent, f"files of weights, and {(absent or [''])[0]!r} is not a file"),
            "study_seeds": (len(set(self.study_seeds)) == len(self.study_seeds), "different seeds"),
        }
        for name in ("combined_of", "test_sets"):
            names = getattr(self, name)
            rules[name] = (
                all(names) and len(set(names)) == len(names) and not any("," in dataset for dataset in names),
                "different names of datasets; several are written [market1501,dukemtmc]",
            )
        check_rules(self, rules)

    @property
    def data(self) -> dict[str, Any]:
        """The arguments of `book.prepare_data` after its config."""
        names = ("archive", "combined_of", "test_sets", "num_val_ids", "pattern", "test_share")
        return {name: getattr(self, name) for name in names} | {"multi_query": bool(self.test_multi_query)}


def read_settings(namespace: Mapping[str, Any]) -> tuple[TrainConfig, Plan]:
    """The config and the plan that a full-run notebook's parameters give, see `runs.read_parameters`.

    A run that has begun is validated and tested in its precision, also on a different machine.
    """
    config, plan = runs.read_several(namespace, TrainConfig, Plan)
    for backbone in set(config.backbones or (config.backbone,)):
        by_stripes = [distance for distance in plan.test_distances if distance != "global"]
        if by_stripes and not has_map(backbone):
            raise InputError(f"test_distances has {by_stripes[0]}, but {backbone} has no feature map; give only global")
    return as_begun(config, plan.run_dir), plan


def validation(config: TrainConfig) -> Callable[[AlignedReID], dict[str, float]]:
    """What `train` calls to validate: the network ranks the val part by its global features.

    Returns:
        a function of the network that gives its `mean_ap` (step) and `rank1`, fractions.

    Raises:
        InputError: the dataset has no validation people.
    """
    dataset = open_dataset(config.folder, "val")
    if not len(dataset):
        raise InputError(f"{config.folder} has no validation people; prepare it with num_val_ids of 1 or more")
    return Validation(config, dataset)


@dataclass
class Validation:
    """See `validation`. It is a class so that it can be sent to other processes, which decode the images themselves."""

    config: TrainConfig
    dataset: Dataset
    store: images.ImageStore | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"store": None}

    def __call__(self, network: AlignedReID) -> dict[str, float]:
        """mean_ap and rank1 of the val part."""
        self.store = self.store or _store(self.dataset, self.config, self.config.memory_limit)
        where = str(next(network.parameters()).device)
        found = embed(network, self.dataset, self.config, store=self.store, device=where)
        table = evaluate(found, ("global",), rerank=False, normalize=self.config.unit_test, device=where)
        row = table.rows[0]
        return {"mean_ap": row.mean_ap_step, "rank1": row.rank1}


def _store(dataset: Dataset, config: TrainConfig, limit_bytes: int) -> images.ImageStore:
    return images.ImageStore(dataset.paths, (config.height, config.width), limit_bytes, config.workers)


def embed(network: AlignedReID, dataset: Dataset, config: TrainConfig, **how: Any) -> Features:
    """Features of a dataset, computed as the config's training computes: its image size, device, precision and workers.

    Args:
        how: of `features.extract`.
    """
    names = ("height", "width", "device", "precision", "workers")
    return extract(network, dataset, **{name: getattr(config, name) for name in names} | how)


def score(
    network: AlignedReID,
    config: TrainConfig,
    test_sets: Sequence[str] | str,
    distances: Sequence[str] | str = ("global",),
    rerank: bool = False,
) -> ScoreTable:
    """Test a trained network with the image size, device, precision and normalisation of its config.

    Args:
        test_sets: names of datasets in `config.data_root`; if there are several, each row has its dataset's name.
        distances, rerank: see `evaluation.evaluate`.
    """
    names, by = (typed(*given, tuple[str, ...]) for given in (("test_sets", test_sets), ("distances", distances)))
    return _score_all([network], config, names, by, rerank)[0]


def _score_all(
    networks: Sequence[AlignedReID],
    config: TrainConfig,
    test_sets: Sequence[str],
    by: Sequence[str],
    rerank: bool,
    multi_query: Literal["", "average", "max"] = "",
) -> list[ScoreTable]:
    """The table of each network, see `score`; with `multi_query` also its rows with queries pooled that way."""
    tables = [ScoreTable([]) for _ in networks]
    for name in test_sets:
        dataset = open_dataset(runs.resolve(config.data_root) / name, "test")
        if not multi_query:
            dataset = dataset[np.asarray(dataset.marks) != MULTI_QUERY]  # 12 688 of Market-1501
        store = _store(dataset, config, config.memory_limit if len(networks) > 1 else 0)  # decoded once for all
        shown = name if len(test_sets) > 1 else ""
        for k, network in enumerate(networks):
            found = embed(network, dataset, config, store=store)
            how: dict[str, Any] = {"normalize": config.unit_test, "device": config.device}
            tables[k] += evaluate(found, by, rerank, name=shown, **how)
            if multi_query:
                pooled = ", ".join(filter(None, (shown, "multi-query")))
                tables[k] += evaluate(found, by, rerank, multi_query, pooled, **how)
    return tables


def networks(config: TrainConfig, plan: Plan, result: TrainResult | None) -> dict[str, AlignedReID]:
    """The networks that a full run tests, by the names that their rows of the table get.

    Args:
        result: the training's: the last epoch's weights are tested and, if it was validated, the best epoch's; several
            models are named "model 1", "model 2", ... None: the files of `plan.only_test` are tested.
    """
    if result is None:
        return {file: load_network(config, runs.resolve(file)) for file in plan.only_test}
    sets = {"": result.all_weights}
    if result.best_weights:
        sets = {"last epoch": result.all_weights, f"epoch {result.best_epoch}": result.best_weights}
    found = {}
    for epoch, files in sets.items():
        for k, file in enumerate(files):
            model = f"model {k + 1}" if len(files) > 1 else ""
            found[", ".join(filter(None, (model, epoch)))] = load_network(config, file, k)
    return found


def test(found: Mapping[str, AlignedReID], config: TrainConfig, plan: Plan, test_sets: Sequence[str]) -> ScoreTable:
    """The score table of a full run: the rows of each network, and the means over the files of `plan.only_test`."""
    how = plan.test_distances, plan.test_rerank, plan.test_multi_query
    tables = _score_all(list(found.values()), config, test_sets, *how)
    rows = [row for name, table in zip(found, tables, strict=True) for row in table.named(name).rows]
    if len(plan.only_test) > 1:
        rows += average(tables).named(f"mean of {len(plan.only_test)}").rows
    return ScoreTable(rows)


def write_results(config: TrainConfig, plan: Plan, result: TrainResult | None, scores: ScoreTable) -> Path:
    """Write the results.json of a full run, see `runs.write_results`."""
    settings = dataclasses.asdict(config) | {
        name: list(getattr(plan, name)) for name in ("combined_of", "test_distances")
    }
    settings |= {"test_rerank": plan.test_rerank, "test_sets": list(plan.test_sets)}
    settings |= {"test_multi_query": plan.test_multi_query} if plan.test_multi_query else {}
    minutes, training = 0.0, {}
    if result is None:
        settings["only_test"] = list(plan.only_test)
    else:
        settings["precision"], minutes = result.precision, result.minutes
        training = {"wall_minutes": round(result.wall_minutes, 2), "parts": result.parts}
        training["last_epoch"] = result.metrics[-1]
    rows, device = scores.to_dict()["rows"], devices.choose_device(config.device)
    return runs.write_results(plan.run_dir, settings, rows, minutes, device, training)
