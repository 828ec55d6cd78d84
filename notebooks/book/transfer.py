"""What happens to a threshold's error rates on other cameras: from drawn people to Market-1501 and CUHK03, say.

    python notebooks/book/transfer.py [RUN ...]

The book's model chooses a threshold on its drawn test people; a RUN, the folder of a finished training, on those of
its own dataset. Both are then used on all test sets that `data/` has. `notebooks/results/threshold_transfer.json`
gets the rates of all these networks, in place of those that it had; chapter 12 shows them. Images never leave `data/`.
"""

import dataclasses
import sys
from typing import Any

import numpy as np

from alignedreid_lib import book, devices, losses, runs
from alignedreid_lib.datasets import Dataset, open_dataset
from alignedreid_lib.datasets.partitions import GALLERY, QUERY
from alignedreid_lib.errors import InputError
from alignedreid_lib.evaluation.features import Features, extract
from alignedreid_lib.model import AlignedReID
from alignedreid_lib.search.threshold import Threshold, error_rates, nearest_distances
from alignedreid_lib.training import TrainConfig
from finished_run import open_finished

RATE = 0.05  # of false alarms where the threshold is chosen
PEOPLE, IMAGES = 100, 400  # of a gallery: the same everywhere, because more images mean more false alarms
DRAWS = 3  # different choices
SETS = {
    "drawn people": "data/synthetic/market1501",
    "Market-1501": "data/market1501",
    "CUHK03": "data/cuhk03/detected",
}


def draw(dataset: Dataset, seed: int) -> Dataset:
    """Queries and gallery images of some people, drawn at random; of those in the gallery as many as everywhere."""
    rng = np.random.default_rng(seed)
    marks: Any = dataset.marks
    people = rng.permutation(np.unique(dataset.ids[marks == QUERY]))[:PEOPLE]
    known = np.isin(dataset.ids, people)
    gallery = rng.permutation(np.flatnonzero(known & (marks == GALLERY)))[:IMAGES]
    return dataset[np.concatenate([np.flatnonzero(known & (marks == QUERY)), np.sort(gallery)])]


def split(features: Features) -> tuple[Features, Features]:
    """Queries and gallery."""
    return features[features.marks == QUERY], features[features.marks == GALLERY]


def rows(network: AlignedReID, config: TrainConfig, name: str, trained_on: str) -> list[dict[str, Any]]:
    """The rates of one network's threshold on each set; a row's rates are means over the draws."""
    how: dict[str, Any] = {"height": config.height, "width": config.width, "precision": "float32"}
    found: dict[str, list[Any]] = {}
    for place, folder in SETS.items():
        if (runs.resolve(folder) / "partitions.pkl").is_file():
            dataset = open_dataset(runs.resolve(folder), "test")
            drawn = [extract(network, draw(dataset, seed), **how) for seed in range(DRAWS)]
            if config.unit_test:  # its distances are those of features of unit length
                drawn = [
                    dataclasses.replace(one, global_features=losses.unit_length(one.global_features)) for one in drawn
                ]
            found[place] = [nearest_distances(*split(features)) for features in drawn]
    chosen = [Threshold.choose(part, RATE, "global", IMAGES, trained_on) for part in found[trained_on]]
    table = []
    for place, parts in found.items():
        rates = [error_rates(part, threshold.value) for part, threshold in zip(parts, chosen, strict=True)]
        own = [Threshold.choose(part, RATE, "global", IMAGES, place) for part in parts]
        row = {"network": name, "chosen_on": trained_on, "used_on": place, "images": IMAGES, "draws": DRAWS}
        row |= dict(zip(("false_alarm_rate", "found_rate"), np.mean(rates, axis=0).round(4).tolist(), strict=True))
        row |= {"threshold": round(float(np.mean([threshold.value for threshold in chosen])), 4)}
        row |= {"own_threshold": round(float(np.mean([threshold.value for threshold in own])), 4)}
        row |= {"own_found_rate": round(float(np.mean([threshold.found_rate for threshold in own])), 4)}
        table.append(row)
        print(row, flush=True)
    return table


def open_run(folder: str) -> tuple[AlignedReID, TrainConfig, str]:
    """The network of a finished run, its settings, and the name in `SETS` of the dataset that it was trained on.

    Raises:
        InputError: not a finished run, or one of a dataset that is not in `SETS` or not in `data/`.
    """
    network, config = open_finished(folder)
    trained_on = runs.resolve(config.data_root) / config.dataset
    place = next((name for name, path in SETS.items() if runs.resolve(path) == trained_on), None)
    if place is None or not (trained_on / "partitions.pkl").is_file():
        raise InputError(
            f"{runs.resolve(folder)}: trained on {trained_on}; a threshold is chosen on the test set of one of "
            f"{', '.join(SETS)}, and it has to be prepared"
        )
    return network, config, place


def main(*folders: str) -> None:
    """Measure and write.

    Raises:
        InputError: see `open_run`; nothing is written.
    """
    trained = [open_run(folder) for folder in folders]
    table = rows(book.model().network, book.CONFIG, "the book's model", "drawn people")
    for network, config, place in trained:
        table += rows(network, config, f"{config.backbone}, trained on {place}", place)
    content = {"rate": RATE, "rows": table, **runs.provenance(devices.choose_device("cpu"))}
    runs.write_json(runs.resolve(book.RESULTS) / "threshold_transfer.json", content)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except InputError as error:
        sys.exit(str(error))
