"""`make export`: a run's network as one file for other programs, compared with the network."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from presets import plan, read_preset

PICTURES = 64  # that are compared one by one
BATCH = 32  # images that are timed
LARGEST = 1e-4  # difference in float32, a share of the largest feature
BOOK = "book"  # the book's own model, which no preset trains


def run(root: Path, preset: str, kind: str, weights: str, overrides: dict[str, Any]) -> None:
    """Writes the file into the run's folder, and a table of what it costs into export.json there.

    Args:
        preset: a preset's name, or "book" for the book's own model.
        kind: onnx, int8 or torch.
        weights: a file of weights of the same network; "" for the finished run's.
        overrides: parameters, as for `make train`: they choose the run's folder, and the test set.

    Raises:
        ValueError: no such preset or format, no weights, or a file that differs from the network.
    """
    import torch  # seconds, which the other commands need not wait

    from alignedreid_lib import book, datasets, evaluation, export, runs, training
    from alignedreid_lib.batches import images
    from alignedreid_lib.datasets.partitions import MULTI_QUERY
    from alignedreid_lib.evaluation import features

    if kind not in export.FORMATS:
        raise ValueError(f"no format {kind!r}; there are: {', '.join(export.FORMATS)} (make export FORMAT=onnx)")
    if preset == BOOK:
        config, folder, tested = book.CONFIG, runs.resolve(book.RUN_DIR, root), ""
    else:
        _, settings = plan(root, preset, overrides)
        settings = read_preset(root, preset).defaults | settings
        fields = [field.name for field in dataclasses.fields(training.TrainConfig)]
        config = training.TrainConfig(**{name: settings[name] for name in fields if name in settings})
        folder, tested = runs.resolve(settings["run_dir"], root), ([*settings.get("test_sets", ()), ""])[0]
    file = runs.resolve(weights, root) if weights else folder / "weights.pth"
    if not file.is_file():
        several = sorted(folder.glob("weights_*.pth"))
        advice = f"WEIGHTS={several[0]}" if several else f"make {'run' if preset == BOOK else 'train'} first"
        raise ValueError(f"{file}: no such weights; {advice}, or name a file with WEIGHTS=")
    network = training.load_network(config, file)
    size, facts = (config.height, config.width), {"preset": preset, **runs.provenance()}
    target = folder / export.FORMATS[kind]
    runs.make_folder(folder)
    source = folder / export.FORMATS["onnx" if kind == "int8" else kind]
    export.write(network, source, size, "torch" if kind == "torch" else "onnx", facts)
    if kind == "int8":
        export.quantize(source, target)
    print(
        f"{target.relative_to(root) if target.is_relative_to(root) else target}: {target.stat().st_size / 1e6:.1f} MB"
    )

    name = tested or config.dataset
    try:
        dataset = datasets.open_dataset(runs.resolve(config.data_root, root) / name, "test")
        dataset = dataset[np.asarray(dataset.marks) != MULTI_QUERY]
        pictures = [images.decode(path) for path in dataset.paths[:PICTURES]]
    except ValueError as error:
        print(f"not scored, and compared on noise: {error}")
        dataset, random = None, np.random.default_rng(1)
        pictures = [
            torch.from_numpy(random.integers(0, 256, (3, *random.integers(50, 300, 2)), np.uint8))
            for _ in range(PICTURES)
        ]
    opened = export.open_file(target, 1)
    difference = export.compare(network, opened, pictures, size)
    shown = f"largest difference to PyTorch on {len(pictures)} images, as a share of the largest feature"
    print(f"{shown}: {difference.global_features:.1e} global, {difference.local_features:.1e} local")
    if kind != "int8" and max(difference) > LARGEST:
        target.unlink()
        raise ValueError(
            f"{target}: differs from the network by more than {LARGEST:.0e}, and is not kept; please report it"
        )
    batch = np.stack([images.resize(pictures[0], size).permute(1, 2, 0).numpy()] * BATCH)
    timed = {"float32": export.open_file(source, 1), "int8": opened} if kind == "int8" else {kind: opened}
    speed = export.milliseconds(timed, batch)
    rows = []
    if dataset is not None:
        how: dict[str, Any] = {"height": size[0], "width": size[1], "precision": "float32", "device": "cpu"}
        tests = {"PyTorch": features.extract(network, dataset, **how), target.name: export.extract(opened, dataset)}
        for label, found in tests.items():
            row = evaluation.evaluate(found, ("global",), False, normalize=config.normalize).rows[0]
            rows.append([label, 100 * row.rank1, 100 * row.mean_ap_step])
        print(tabulate(rows, [name, "rank-1", "mAP (step)"], tablefmt="github", floatfmt=".2f"))
    for label, took in speed.items():
        print(f"{label}: {took:.1f} ms for {BATCH} images of {size[0]} x {size[1]}, one thread")
    record = {"kind": kind, "file": target.name, "megabytes": round(target.stat().st_size / 1e6, 2), "test_set": name}
    record |= {"pictures": len(pictures), "largest_difference": difference._asdict(), "milliseconds": speed}
    record["scores"] = [{"name": label, "rank1": one, "mean_ap_step": ap} for label, one, ap in rows]
    config_record = {key: getattr(config, key) for key in ("backbone", "height", "width", "seed")}
    runs.write_json(folder / f"export_{kind}.json", record | {"config": config_record} | facts)
