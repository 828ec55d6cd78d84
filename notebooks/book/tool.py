"""The commands behind the Makefile: run, train, pairs, check-pairs, site, test; `make help` explains each."""

import argparse
import ast
import dataclasses
import fcntl
import hashlib
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import nbformat
import papermill
import yaml
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.exceptions import PapermillExecutionError

import checks
import links
import pairs
import progress

ROOT = Path(__file__).resolve().parents[2]
# Late in a training ever more numbers are smaller than 1e-38, and processors compute with those many times slower: a
# full run counts them as 0. Said before anything else, since threads that exist already do not hear it.
FLUSH = "--IPKernelApp.exec_lines=import torch; torch.set_flush_denormal(True)"
# A full run shows the library's log: a line an epoch.
LOG = (
    "--IPKernelApp.exec_lines=import logging, sys; log = logging.getLogger('alignedreid_lib'); "
    "log.addHandler(logging.StreamHandler(sys.stdout)); log.setLevel(logging.INFO); del log"
)


# Parameters that say where to compute, or into which folder, and not what.
WHERE = ("run_dir", "device", "model_devices", "workers", "memory_limit")


def execute(
    root: Path,
    name: str,
    out: Path,
    parameters: dict[str, Any],
    show: bool = False,
    seconds: int | None = None,
    kernel: Sequence[str] = (),
    skip: Sequence[str] = (),
) -> None:
    """Runs a chapter headless, in `notebooks/`, and leaves the executed notebook in `out`.

    Args:
        show: pass on what the cells print, as they print it.
        seconds: what one cell may take.
        kernel: more arguments of its kernel.
        skip: tags of cells to leave out.

    Raises:
        ValueError: a cell failed; the message is one line. An InputError is for users: its message alone.
    """
    out.mkdir(parents=True, exist_ok=True)
    streams = {"stdout_file": sys.stdout, "stderr_file": sys.stderr} if show else {}
    target = out / f"{name}.ipynb"
    shown = os.path.relpath(target, root)
    notebook = nbformat.read(root / "notebooks" / f"{name}.ipynb", as_version=4)
    # An explorer is for a hand on its sliders; headless it is nothing.
    notebook.cells = [cell for cell in notebook.cells if not {"explorer", *skip} & set(pairs.tags(cell))]
    try:
        papermill.execute_notebook(
            notebook,
            target,
            parameters,
            kernel_name="python3",
            cwd=root / "notebooks",
            progress_bar=False,
            start_timeout=pairs.START_SECONDS,
            execution_timeout=seconds,
            extra_arguments=[*pairs.QUIET_KERNEL, *kernel],
            **streams,
        )
    except PapermillExecutionError as error:
        if error.ename == "InputError":
            raise ValueError(error.evalue) from error
        message = f"{error.ename}: {' '.join(error.evalue.split())}"
        raise ValueError(f"{name}: {message} (cell [{error.exec_count}] of {shown})") from error
    except CellTimeoutError as error:
        raise ValueError(f"{name}: a cell took more than {seconds} s; see {shown}") from error
    except DeadKernelError as error:
        raise ValueError(f"{name}: its Python process died (out of memory?); see {shown}") from error


def run(root: Path) -> None:
    """Runs chapters 00 to 09 on the embedded data into `runs/book/`, then prints the score table.

    A chapter that fails does not keep the others from being run.

    Raises:
        ValueError: chapters failed, or none wrote the score table.
    """
    out = root / "runs" / "book"
    scores = out / "scores.json"
    scores.unlink(missing_ok=True)  # the table printed below is this run's
    names = sorted(path.stem for path in (root / "notebooks").glob("0?_*.ipynb"))
    shown = os.path.relpath(out, root)
    print(f"Each chapter is left in {shown}/ with its pictures as soon as it is done; look at the first one while the")
    print(f"others are run: .venv/bin/jupyter lab {shown}/{names[0]}.ipynb\n", flush=True)
    failed: dict[str, ValueError] = {}
    begun = time.perf_counter()
    for name in names:
        target, log = out / f"{name}.ipynb", out / f"{name}.log"
        target.unlink(missing_ok=True)
        with progress.Line(name, partial(doing, target, log)) as line:
            try:
                execute(root, name, out, {}, seconds=pairs.CELL_SECONDS, kernel=[log_into(log)])
            except ValueError as error:
                failed[name], line.ending = error, f"failed: {error}"
        log.unlink(missing_ok=True)
    print(f"{f'{len(names)} chapters':<{progress.WIDTH}}{time.perf_counter() - begun:5.0f} s\n")
    if scores.exists():
        print(score_table(json.loads(scores.read_text())["rows"]))
    if failed:
        reasons = "".join(f"\n  {error}" for error in failed.values())
        raise ValueError(f"\n{len(failed)} of {len(names)} chapters failed:{reasons}")
    if not scores.exists():
        raise ValueError("no score table: 08_evaluation did not write runs/book/scores.json")


def log_into(path: Path) -> str:
    """The argument for a kernel that writes the library's log into a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    return (
        "--IPKernelApp.exec_lines=import logging; log = logging.getLogger('alignedreid_lib'); "
        f"log.addHandler(logging.FileHandler({str(path)!r})); log.setLevel(logging.INFO); del log"
    )


def doing(notebook: Path, log: Path) -> str:
    """What an executing chapter is at: the number of its cell, and the last line of the library's log.

    Args:
        notebook: that papermill writes after each cell.
        log: see `log_into`; forgotten when the cell that wrote it is done.
    """
    try:
        cells = json.loads(notebook.read_text("utf-8"))["cells"]
    except (OSError, ValueError):  # not there yet, or being written
        return "starting"
    states = [cell["metadata"]["papermill"]["status"] for cell in cells if cell["cell_type"] == "code"]
    words = f"cell {min(states.count('completed') + 1, len(states))} of {len(states)}"
    try:
        if log.stat().st_mtime >= notebook.stat().st_mtime:
            words += ": " + log.read_text("utf-8").splitlines()[-1]
    except (OSError, IndexError):
        pass
    return words


def score_table(rows: list[dict[str, Any]]) -> str:
    """The rows of `scores.json` as aligned text; scores are fractions, printed in percent."""
    columns = {"rank1": "rank-1", "mean_ap_step": "mAP (step)", "mean_ap_trapezoid": "mAP (trapezoid)"}
    width = max(len(row["name"]) for row in rows)
    lines = [" " * width + "".join(f"  {title}" for title in columns.values())]
    for row in rows:
        line = f"{row['name']:<{width}}"
        for key, title in columns.items():
            text = "-" if row[key] is None else f"{100 * row[key]:.1f}"
            line += f"  {text:>{len(title)}}"
        lines.append(line)
    return "\n".join(lines)


def value(text: str) -> Any:
    """A value given on the command line: a Python or YAML literal, else the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        pass
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def plan(root: Path, preset: str, overrides: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The notebook that a preset names and the parameters to run it with, checked before anything runs.

    The run's folder is `runs/<preset>`; what the overrides change is added to its name (`_seed2`), so that
    two settings never meet in one folder; where it is computed (a device, say) is no setting. An override of
    `run_dir` is taken as it is.

    Raises:
        ValueError: no such preset or notebook, or a parameter that the notebook does not know.
    """
    path = root / "notebooks" / "presets" / f"{preset}.yaml"
    if not preset or not path.exists():
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml")))
        raise ValueError(f"no preset {preset!r}; there are: {known} (make train PRESET=name)")
    content = yaml.safe_load(path.read_text())
    if not isinstance(content, dict) or set(content) != {"notebook", "parameters"}:
        raise ValueError(f"{path.relative_to(root)}: a preset has the keys notebook and parameters")
    name, given = content["notebook"], content["parameters"]
    source = root / "notebooks" / f"{name}.ipynb"
    if not source.exists():
        raise ValueError(f"{path.relative_to(root)}: no notebook notebooks/{name}.ipynb")
    defaults = pairs.parameters(nbformat.read(source, as_version=4))
    if unknown := [key for key in (*given, *overrides) if key not in defaults]:
        raise ValueError(f"unknown parameter {unknown[0]!r}; {name} knows: {', '.join(sorted(defaults))}")
    settings = defaults | given
    changed = {k: v for k, v in sorted(overrides.items()) if k not in WHERE and settings[k] != v}
    suffix = "".join(f"_{key}{v}" for key, v in changed.items())
    folder = re.sub(r"[^\w.-]+", "-", preset + suffix)
    if len(folder) > 120:  # a list of files, say; a folder's name has its limits
        folder = f"{folder[:100]}-{hashlib.sha1(folder.encode()).hexdigest()[:8]}"
    run_dir = f"runs/{folder}"
    return name, {"run_dir": run_dir} | given | overrides


def end_with_make() -> None:
    """Ends this process when the make that started it is gone, so that a killed `make train` leaves nothing behind."""

    def watch(parent: int) -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    if "MAKELEVEL" in os.environ:
        threading.Thread(target=watch, args=(os.getppid(),), daemon=True).start()


def train(root: Path, preset: str, overrides: dict[str, Any]) -> None:
    """Runs a preset in full; asked again, the notebook goes on from the last finished epoch.

    A process that `torchrun` started trains its share instead.
    """
    name, settings = plan(root, preset, overrides)
    if "TORCHELASTIC_RUN_ID" in os.environ:
        defaults = pairs.parameters(nbformat.read(root / "notebooks" / f"{name}.ipynb", as_version=4))
        train_share(defaults | settings)
        return
    print(f"{preset}: {name} into {settings['run_dir']}", flush=True)
    folder = root / settings["run_dir"]
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:  # held until this process ends
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{settings['run_dir']}: another make train is at work in it; wait for it") from None
        execute(root, name, folder, settings, show=True, kernel=[FLUSH, LOG], skip=["demonstration"])


def train_share(settings: dict[str, Any]) -> None:
    """What each of several processes does that `torchrun` started, on one machine or on many.

    Raises:
        ValueError: a study, or a test of weights, which are no single trainings.

    The first process of each machine prepares the data there; the first of all keeps the run's folder. Nothing is
    tested: `make train` does, when it finds the run finished.
    """
    import torch  # seconds, which the other commands need not wait

    from alignedreid_lib import book, launching, testing, training

    if "processes" not in settings or settings.get("study_seeds") or settings.get("only_test"):
        raise ValueError("torchrun trains single runs; start studies and tests with make train")
    known = {field.name for field in dataclasses.fields(training.TrainConfig)}
    config = training.TrainConfig(**{name: value for name, value in settings.items() if name in known})
    with launching.joined(config.device):
        for in_turn in ("RANK", "LOCAL_RANK"):  # machines may share a disk: the first of all, then whoever misses it
            if os.environ[in_turn] == "0":
                book.prepare_data(config, settings["archive"], settings["combined_of"], settings["test_sets"])
            torch.distributed.barrier()
        if os.environ["RANK"] == "0":
            logging.getLogger("alignedreid_lib").setLevel(logging.INFO)
            logging.basicConfig(format="%(message)s", stream=sys.stdout)
        validate = testing.validation(config) if config.validate_every else None
        training.train(config, settings["run_dir"], validate=validate)


def site(root: Path) -> None:
    """Builds the site from the committed notebooks into `site/`; a warning is an error.

    Raises:
        ValueError: Sphinx warned.
    """
    source, out = root / "build" / "book", root / "build" / "site"  # myst-nb leaves a folder of its own beside out
    for folder in (source, out, root / "site"):
        shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(root / "notebooks" / "book", source, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    chapters = {
        name: nbformat.read(root / "notebooks" / f"{name}.ipynb", as_version=4)
        for name in pairs.chapters(root / "notebooks")
    }
    references = links.read_references(source / "references.bib")
    (source / "bibliography.md").write_text(links.bibliography(source / "references.bib", chapters))
    for name, notebook in chapters.items():
        notebook.cells = [cell for cell in notebook.cells if "explorer" not in pairs.tags(cell)]
        for cell in notebook.cells:
            if cell.cell_type == "code":
                words = pairs.alt_text(cell)
                cell.metadata["mystnb"] = {"image": {"alt": words}}
                if any("image/png" in output.get("data", {}) for output in cell.outputs):
                    cell.metadata["mystnb"]["figure"] = {"caption": f"{words}."}
                    if label := cell.metadata.get("label"):
                        cell.metadata["mystnb"]["figure"]["name"] = label
        links.link_prose(notebook, references)
        notebook.cells.append(nbformat.v4.new_markdown_cell(links.library_cell(notebook)))
        nbformat.write(notebook, source / f"{name}.ipynb")
    options = ["-W", "--keep-going", "-q", "-E", "-c", "notebooks/book", "-d", "build/doctrees"]
    code = subprocess.run([sys.executable, "-m", "sphinx", *options, source, out], cwd=root).returncode
    if (out / "index.html").exists():
        out.rename(root / "site")
    if code:
        raise ValueError("the site was built with warnings")


def check_pairs(root: Path) -> None:
    """Prints what is wrong with the committed pairs.

    Raises:
        ValueError: something is.
    """
    folder = root / "notebooks"
    found = [problem for name in pairs.chapters(folder) for problem in pairs.problems(folder, name)]
    print("\n".join(found) or f"{len(pairs.chapters(folder))} pairs agree")
    if found:
        raise ValueError(f"{len(found)} problems in the pairs")


def unfold(root: Path) -> None:
    """Writes the chapters with their solutions as cells into `build/chapters`, for `make test`."""
    shutil.rmtree(root / "build" / "chapters", ignore_errors=True)
    pairs.unfold_solutions(root / "notebooks", root / "build" / "chapters")


def main(words: list[str]) -> None:
    """Reads the command line and calls the command; an error ends with one line and exit code 1."""
    parser = argparse.ArgumentParser(prog="tool.py", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("run", "check-pairs", "unfold", "site", "test"):
        commands.add_parser(name)
    command = commands.add_parser("train")
    command.add_argument("preset")
    command.add_argument("-p", dest="parameters", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    command = commands.add_parser("pairs")
    command.add_argument("only", nargs="?", default="")
    command.add_argument("--force", action="store_true")
    args = parser.parse_args(words)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, str(cores))
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # else every kernel warns of frozen modules
    try:
        if args.command == "train":
            end_with_make()
            train(ROOT, args.preset, {name: value(text) for name, text in args.parameters})
        elif args.command == "pairs":
            pairs.update_all(ROOT / "notebooks", args.only, args.force)
        else:
            known = {"run": run, "check-pairs": check_pairs, "unfold": unfold, "site": site, "test": checks.run_all}
            known[args.command](ROOT)
    except ValueError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("stopped")


if __name__ == "__main__":
    main(sys.argv[1:])
