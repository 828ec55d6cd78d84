"""The front page: its figures are the chapters' own, its lists are read from the README and from the finished runs."""

import base64
import csv
import json
import re
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sliding
from cells import alt_text

Notebooks = Mapping[str, Any]  # name of a chapter to its executed notebook
ROW = re.compile(r"^\| \[(\d\d) ([^]]+)\]\(notebooks/(\w+)\.ipynb\) \| [^|]* \| ([^|]+) \|$", re.MULTILINE)
ANSWERS = re.compile(r"Answers lines ((?:\d+[,\s#]*)+)")
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


def answered(root: Path) -> tuple[int, int]:
    """How many published rows have a finished run of ours, and how many there are."""
    with open(root / "notebooks" / "results" / "published_scores.csv", newline="") as file:
        rows = len(list(csv.DictReader(file)))
    runs = {re.sub(r"_seed\d+$", "", name) for name in finished(root)}
    lines: set[str] = set()
    for preset in (root / "notebooks" / "presets").glob("*.yaml"):
        if preset.stem in runs and (found := ANSWERS.search(preset.read_text("utf-8"))):
            lines |= set(re.findall(r"\d+", found[1]))
    return len(lines), rows


def real_runs(root: Path) -> str:
    """A table of our runs on real images: their best distance without re-ranking, and what they took."""
    lines = ["| run | data | network | rank-1 | mAP (step) | distance | minutes |", "|---|---|---|---:|---:|---|---:|"]
    for name, run in finished(root).items():
        config = run["config"]
        if config["data_root"] != "data":  # drawn people are elsewhere
            continue
        score = max((s for s in run["scores"] if not s["reranked"]), key=lambda score: score["rank1"])
        numbers = f"{100 * score['rank1']:.1f} | {100 * score['mean_ap_step']:.1f}"
        lines.append(
            f"| `{name}` | {config['dataset']} | {config['backbone']} | {numbers} | {score['distance']} "
            f"| {run['minutes']:.0f} |"
        )
    return "\n".join(lines)


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
    drawn = sorted(name for name, run in finished(root).items() if run["config"]["data_root"] != "data")
    names = ", ".join(f"`{name}`" for name in drawn)
    return "\n".join(
        [
            "* **Every number in the chapters is computed when the chapter runs**, on people drawn by the library, and "
            "is checked again on every change.",
            f"* {rows} [Chapter 10](10_reproduction.ipynb) has the table.",
            f"* {gpu}",
            f"* Longer runs on drawn people: {names}.",
            "* Runs on real images, so far small ones on two processor cores (in percent, the distance with the best "
            "rank-1):",
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
