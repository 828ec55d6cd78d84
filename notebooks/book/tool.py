"""The commands behind the Makefile: run, train, export, pairs, site, pdf, test, ...; `make help` explains each."""

import argparse
import dataclasses
import logging
import os
import shutil
import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import nbformat

import architecture
import cells
import checks
import executor
import exporting
import front
import kept
import links
import pairs
import portable
import printing
import running
from cells import DEMONSTRATION, EXPLORER
from ending import stopped_softly
from presets import plan, read_overrides, read_preset, run_folder

ROOT = Path(__file__).resolve().parents[2]


def train(root: Path, preset: str, overrides: dict[str, Any]) -> None:
    """Runs a preset in full; asked again, the notebook goes on from the last finished epoch.

    A process that `torchrun` started trains its share instead.
    """
    name, settings = plan(root, preset, overrides)
    if "TORCHELASTIC_RUN_ID" in os.environ:
        train_share(root, read_preset(root, preset).defaults | settings)
        return
    folder, new = run_folder(root, settings["run_dir"])
    from alignedreid_lib.runs import lock  # takes seconds, which the other commands need not wait

    before = set(os.listdir(folder)) - {lock.NAME}
    print(f"{preset}: {name} into {settings['run_dir']}", flush=True)
    with lock.locked(folder, settings["run_dir"]):
        try:
            kernel = [executor.FLUSH, executor.LOG]
            running.execute(root, name, folder, settings, show=True, kernel=kernel, skip=[DEMONSTRATION])
        except ValueError as error:
            made = {path.name for path in folder.iterdir()} - before
            if getattr(error.__cause__, "ename", "") == "InputError" and made <= {lock.NAME, f"{name}.ipynb"}:
                for file in made:  # refused before there was anything to keep
                    (folder / file).unlink()
                with suppress(OSError):  # a different run may have come into one of them
                    for path in new:
                        path.rmdir()
            raise


def train_share(root: Path, settings: dict[str, Any]) -> None:
    """What each of several processes does that `torchrun` started, on one machine or on many.

    Raises:
        ValueError: a study, or a test of weights, which are not single trainings; or the run is at work already.

    The first process of each machine prepares the data there; the first of all keeps the run's folder, and its lock.
    Nothing is tested: `make train` does, when it finds the run finished.
    """
    import torch  # seconds, which the other commands need not wait

    from alignedreid_lib import book, training
    from alignedreid_lib.evaluation import full_run
    from alignedreid_lib.runs import lock
    from alignedreid_lib.training import distributed, launching
    from alignedreid_lib.training.checkpoint import as_begun

    if "processes" not in settings or settings.get("study_seeds") or settings.get("only_test"):
        raise ValueError("torchrun trains single runs; start studies and tests with make train")
    of_training, of_plan = (
        {field.name: settings[field.name] for field in dataclasses.fields(kind) if field.name in settings}
        for kind in (training.TrainConfig, full_run.Plan)
    )
    asked = full_run.Plan(**of_plan)
    config = as_begun(training.TrainConfig(**of_training), asked.run_dir)
    with launching.joined(config.device), ExitStack() as until_the_end:
        patient = distributed.patient_group()  # the preparation may take long

        def take_lock() -> None:
            folder, _ = run_folder(root, asked.run_dir)
            until_the_end.enter_context(lock.locked(folder, asked.run_dir))

        distributed.from_first(take_lock)
        for in_turn in ("RANK", "LOCAL_RANK"):  # machines may share a disk: the first of all, then each that misses it
            if os.environ[in_turn] == "0":
                book.prepare_data(config, **asked.data)
            torch.distributed.barrier(patient)
        if os.environ["RANK"] == "0":
            logging.getLogger("alignedreid_lib").setLevel(logging.INFO)
            logging.basicConfig(format="%(message)s", stream=sys.stdout)
        validate = full_run.validation(config) if config.validate_every else None
        training.train(config, asked.run_dir, validate=validate)


def prepare_code(cell: Any) -> None:
    """Tells myst-nb what a code cell is on the site: folded or open, and the words of its figure."""
    if cells.is_folded(cell):
        cell.metadata["tags"] = [*pairs.tags(cell), "hide-input"]
    cell.metadata["mystnb"] = {
        "image": {"alt": pairs.alt_text(cell)},
        "code_prompt_show": "Show the code",
        "code_prompt_hide": "Hide the code",
    }
    if cells.has_figure(cell):
        caption = cell.metadata.get("caption") or f"{pairs.alt_text(cell)}."
        cell.metadata["mystnb"]["figure"] = {"caption": caption}
        if label := cell.metadata.get("label"):
            cell.metadata["mystnb"]["figure"]["name"] = label


def site(root: Path) -> None:
    """Builds the site from the committed notebooks into `site/`; a warning is an error.

    Raises:
        ValueError: Sphinx warned.
    """
    source, out = root / "build" / "book", root / "build" / "site"  # myst-nb leaves a folder of its own next to out
    for folder in (source, out, root / "site"):
        shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(root / "notebooks" / "book", source, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    chapters = {name: pairs.read(root / "notebooks" / f"{name}.ipynb") for name in pairs.chapters(root / "notebooks")}
    references = links.read_references(source / "references.bib")
    (source / "bibliography.md").write_text(links.bibliography(source / "references.bib", chapters))
    (source / "architecture.md").write_text(architecture.page(root))
    (source / "index.md").write_text(front.page(root, chapters, source))
    (source / "reference").mkdir()
    for name, text in front.reference_pages((source / "reference.md").read_text()).items():
        (source / name).write_text(text)
    (source / "downloads").mkdir()
    for name, notebook in chapters.items():
        notebook.cells = [cell for cell in notebook.cells if EXPLORER not in pairs.tags(cell)]
        for cell in notebook.cells:
            if cell.cell_type == "code":
                prepare_code(cell)
        links.link_prose(notebook, references)
        front.add_downloads(notebook, name)
        for suffix in (".ipynb", ".py"):
            shutil.copy(root / "notebooks" / f"{name}{suffix}", source / "downloads")
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
    kept.refresh(root)
    shutil.rmtree(root / "build" / "chapters", ignore_errors=True)
    pairs.unfold_solutions(root / "notebooks", root / "build" / "chapters")


def gpu_check(root: Path) -> None:
    """What only a GPU can show, checked and measured; exits with 1 if a comparison failed."""
    from gpu_check import running  # takes seconds, which the other commands need not wait

    running.run(root)


def gpu_column(root: Path) -> None:
    """Prints the seconds of the last `make bench`, and those of `make gpu-check`, side by side."""
    from gpu_check import column

    print(column.table(root))


def call(args: argparse.Namespace) -> None:
    """Calls the command."""
    if args.command == "train":
        train(ROOT, args.preset, read_overrides(ROOT, args.preset, args.parameters))
    elif args.command == "export":
        overrides = read_overrides(ROOT, args.preset, args.parameters) if args.preset != exporting.BOOK else {}
        exporting.run(ROOT, args.preset, args.kind, args.weights, overrides)
    elif args.command == "portable-pass":
        portable.run_pass(ROOT, args.profile, args.seed)
    elif args.command == "pairs":
        pairs.update_all(ROOT / "notebooks", args.only, args.force, args.keep)
    else:
        known = {
            "run": running.run,
            "portable": portable.run,
            "check-pairs": check_pairs,
            "unfold": unfold,
            "site": site,
            "pdf": printing.run,
            "test": checks.run_all,
            "gpu-check": gpu_check,
            "gpu-column": gpu_column,
        }
        known[args.command](ROOT)


def main(words: list[str]) -> None:
    """Reads the command line and calls the command; an error ends with one line and exit code 1."""
    one_line = argparse.SUPPRESS  # an error without the usage before it
    parser = argparse.ArgumentParser(prog="tool.py", description=__doc__, usage=one_line)
    commands = parser.add_subparsers(dest="command", required=True, prog="tool.py")
    for name in ("run", "portable", "check-pairs", "unfold", "site", "pdf", "test", "gpu-check", "gpu-column"):
        commands.add_parser(name)
    command = commands.add_parser("train", usage=one_line)
    command.add_argument("preset")
    command.add_argument("-p", dest="parameters", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    command = commands.add_parser("export", usage=one_line)
    command.add_argument("preset")
    command.add_argument("kind")
    command.add_argument("weights")
    command.add_argument("-p", dest="parameters", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    command = commands.add_parser("portable-pass")  # of `portable`, which starts two at a time
    command.add_argument("profile", choices=list(portable.PROFILES))
    command.add_argument("seed", type=int)
    command = commands.add_parser("pairs")
    command.add_argument("only", nargs="?", default="")
    command.add_argument("--force", action="store_true")
    command.add_argument("--keep", choices=["py", "ipynb"], default="")
    args = parser.parse_args(words)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, str(cores))
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # else every kernel warns of frozen modules
    try:
        with stopped_softly():
            call(args)
        sys.stdout.flush()
    except BrokenPipeError:  # nobody reads on (`make train | head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except ValueError as error:
        sys.exit(str(error))
    except OSError as error:
        sys.exit(f"{error.filename or 'a file or connection'}: {error.strerror or error}")
    except KeyboardInterrupt:
        sys.exit("stopped")


if __name__ == "__main__":
    main(sys.argv[1:])
