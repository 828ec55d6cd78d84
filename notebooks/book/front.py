"""The front page: its figures are the chapters' own, its lists are read from the README and from the finished runs."""

import base64
import csv
import json
import re
import string
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

import sliding
from cells import alt_text

Notebooks = Mapping[str, Any]  # name of a chapter to its executed notebook
ROW = re.compile(r"^\| \[(\d\d) ([^]]+)\]\(notebooks/(\w+)\.ipynb\) \| [^|]* \| ([^|]+) \|$", re.MULTILINE)
ANSWERS = re.compile(r"Answers lines ((?:\d+[,\s#]*)+)")
CORES = re.compile(r".+ CPU, (\d+) threads?")  # a device as results files name it
TRAINED_ON = {"folder": "[a folder of one's own](fine_tune.md)"}  # how the table names a kind of dataset
LISTS = "fig-quickstart-lists"  # the label of chapter 00's ranked lists


def chapters(root: Path, notebooks: Notebooks) -> str:
    """A table of the chapters with one line each, which the README has.

    Raises:
        ValueError: the README has no line for a chapter.
    """
    lines = {
        name: (number, title, words) for number, title, name, words in ROW.findall((root / "README.md").read_text())
    }
    if missing := sorted(set(notebooks) - set(lines)):
        raise ValueError(f"README.md, 'The chapters', has no line for {', '.join(missing)}: add one")
    rows = [f"| {lines[n][0]} | [{lines[n][1]}]({n}.ipynb) | {lines[n][2]} |" for n in sorted(notebooks)]
    return "\n".join(["| | chapter | what it is about |", "|---|---|---|", *rows])


def finished(root: Path) -> dict[str, Any]:
    """The finished runs in `notebooks/results`, by name; other files there are not runs."""
    paths = sorted((root / "notebooks" / "results").glob("*.json"))
    found = {path.stem: json.loads(path.read_text("utf-8")) for path in paths}
    return {name: run for name, run in found.items() if "config" in run}


def preset_of(name: str) -> str:
    """The preset of a finished run: its name without the seed."""
    return re.sub(r"_seed\d+$", "", name)


def answered(root: Path) -> tuple[int, int]:
    """How many published rows have a finished run of ours, and how many there are."""
    with open(root / "notebooks" / "results" / "published_scores.csv", newline="") as file:
        rows = len(list(csv.DictReader(file)))
    runs = {preset_of(name) for name in finished(root)}
    lines: set[str] = set()
    for preset in (root / "notebooks" / "presets").glob("*.yaml"):
        if preset.stem in runs and (found := ANSWERS.search(preset.read_text("utf-8"))):
            lines |= set(re.findall(r"\d+", found[1]))
    return len(lines), rows


def is_drawn(root: Path, name: str) -> bool:
    """True for a run whose preset trains on drawn people, which are in folders inside `data`.

    The preset decides, because a run may have found its data in a different folder.
    """
    preset = root / "notebooks" / "presets" / f"{preset_of(name)}.yaml"
    return str(yaml.safe_load(preset.read_text("utf-8"))["parameters"]["data_root"]).startswith("data/")


def trainings(root: Path, drawn: bool) -> dict[str, Any]:
    """The finished trainings on drawn people, or those on real images; a run that only tests is neither."""
    found = {name: run for name, run in finished(root).items() if not run["config"].get("only_test")}
    return {name: run for name, run in found.items() if is_drawn(root, name) == drawn}


def real_tests(run: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The scores of a run by test set: its own dataset's test set, or all real ones if it has none of its own.

    Only single queries count, without re-ranking. A row of the file begins with the name of its test set if the run has
    several.
    """
    config = run["config"]
    sets = config.get("test_sets") or config.get("combined_of") or [config["dataset"]]
    shown = [config["dataset"]] if config["dataset"] in sets else [s for s in sets if not s.startswith("synthetic/")]
    found: dict[str, list[Any]] = {name: [] for name in shown}
    for score in run["scores"]:
        parts = score["name"].split(", ")
        name = sets[0] if len(sets) == 1 else parts[0]
        if name in found and not score["reranked"] and "multi-query" not in parts:
            found[name].append(score)
    return found


def real_runs(root: Path) -> str:
    """A table of our trainings on real images: the best score on their test sets."""
    lines = [
        "| run | trained on | tested on | rank-1 | mAP (step) | distance |",
        "|---|---|---|---:|---:|---|",
    ]
    for name, run in trainings(root, drawn=False).items():
        config = run["config"]
        trained_on = ", ".join(config.get("combined_of") or [TRAINED_ON.get(config["dataset"], config["dataset"])])
        for tested_on, scores in real_tests(run).items():
            score = max(scores, key=lambda score: score["rank1"])
            numbers = f"{100 * score['rank1']:.1f} | {100 * score['mean_ap_step']:.1f}"
            lines.append(f"| `{name}` | {trained_on} | {tested_on} | {numbers} | {score['distance']} |")
    return "\n".join(lines)


def machines(found: Iterable[Mapping[str, Any]]) -> str:
    """What runs were trained on, in words: processor cores and GPUs."""
    names = {part["device"] for run in found for part in run.get("parts") or [run]}
    cores = {int(match[1]) for name in names if (match := CORES.fullmatch(name))}
    words = ["one processor core" if count == 1 else f"{count} processor cores" for count in sorted(cores)]
    return ", ".join([*words, *sorted(name for name in names if not CORES.fullmatch(name))])


def state(root: Path) -> str:
    """What has been reproduced, and what has not, from the files of the finished runs."""
    ours, published = answered(root)
    if ours < published:
        done = "none" if not ours else f"{ours}"
        rows = (
            f"**Of the {published} rows that the original reproduction published, {done} "
            f"{'has' if ours == 1 else 'have'} been run here.** They need the full datasets and a GPU. A preset is "
            "ready for each."
        )
    else:
        rows = f"**All {published} rows that the original reproduction published have been run here.**"
    devices = sorted(
        path.stem.removeprefix("gpu_check_") for path in (root / "notebooks/results").glob("gpu_check_*.json")
    )
    gpu = (
        f"`make gpu-check` has been run on: {', '.join(devices)}."
        if devices
        else "Nothing here has been measured on a GPU yet; `make gpu-check` does it."
    )
    names = ", ".join(f"`{name}`" for name in sorted(trainings(root, drawn=True)))
    where = machines(trainings(root, drawn=False).values())
    return "\n".join(
        [
            "* **The numbers in the chapters are computed when the chapter runs**, on people drawn by the library, and "
            "are checked again on every change. Long trainings and measurements are the exception: chapters 7 and 10 "
            "to 14 read them from results files.",
            f"* {rows} [Chapter 10](10_reproduction.ipynb) has the table.",
            f"* {gpu}",
            f"* Longer trainings on drawn people: {names}.",
            f"* Trainings on real images, so far small ones on {where}. The scores are in percent, for single queries "
            "and without re-ranking, by the model and the distance with the best rank-1:",
            "",
            real_runs(root),
        ]
    )


def ranked_lists(notebooks: Notebooks, folder: Path) -> tuple[str, str]:
    """Saves the quickstart's ranked lists into a folder; the file's name, and what it shows.

    Raises:
        ValueError: the chapter has no such figure.
    """
    kinds = {"image/svg+xml": "svg", "image/png": "png"}
    for cell in notebooks["00_quickstart"].cells:
        for output in cell.get("outputs", []) if cell.metadata.get("label") == LISTS else []:
            for kind, suffix in kinds.items():
                if kind in output.get("data", {}):
                    data = output.data[kind]
                    name = f"ranked_lists.{suffix}"
                    (folder / name).write_bytes(data.encode() if suffix == "svg" else base64.b64decode(data))
                    return name, alt_text(cell)
    raise ValueError(f"00_quickstart.ipynb has no image in the cell labelled {LISTS}, which the front page shows")


def page(root: Path, notebooks: Notebooks, folder: Path) -> str:
    """The front page in Markdown; the figure that it shows is saved into `folder`."""
    image, words = ranked_lists(notebooks, folder)
    template = string.Template((root / "notebooks" / "book" / "index.md").read_text("utf-8"))
    return template.substitute(
        sliding=sliding.figure(sliding.data_of(notebooks["04_alignment"])),
        chapters=chapters(root, notebooks),
        state=state(root),
        lists=image,
        words=words,
    )


def add_downloads(notebook: Any, name: str) -> None:
    """Puts the links to a chapter's files under its title; `downloads` has copies of both."""
    title, _, rest = notebook.cells[0].source.partition("\n")
    links = " · ".join(f"{{download}}`{suffix} <downloads/{name}{suffix}>`" for suffix in (".ipynb", ".py"))
    notebook.cells[0].source = f"{title}\n\n:::{{div}} downloads\n{links} · [Run it](run_it.md)\n:::\n{rest}"


def reference_pages(text: str) -> dict[str, str]:
    """The reference in one page per package: its sections of the second level, and a page that lists them.

    Args:
        text: all of it, a section of level 2 for each package.
    """
    head, *sections = re.split(r"^## ", text, flags=re.MULTILINE)
    pages = {}
    for section in sections:
        name = section.partition("\n")[0].strip()
        pages[f"reference/{name}.md"] = re.sub(r"^##(#+ )", r"#\1", f"# {section}", flags=re.MULTILINE)
    names = "\n".join(path.removeprefix("reference/").removesuffix(".md") for path in pages)
    toctree = "\n".join(f"reference/{name}" for name in names.split())
    return {"reference.md": f"{head.rstrip()}\n\n```{{toctree}}\n:maxdepth: 1\n\n{toctree}\n```\n", **pages}
