"""Chapters run headless with papermill: one by one, with a line that shows the progress."""

import errno
import json
import logging
import os
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import papermill
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.exceptions import PapermillExecutionError
from traitlets.config import Config

import executor
import kept
import pairs
import progress
from cells import EXPLORER

# The columns of the score table: a row's key in scores.json, and the title.
COLUMNS = {"rank1": "rank-1", "mean_ap_step": "mAP (step)", "mean_ap_trapezoid": "mAP (trapezoid)"}
READS = 10  # of a file that papermill writes, until it is whole


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
    notebook = pairs.read(root / "notebooks" / f"{name}.ipynb")
    # An explorer shows nothing unless somebody moves its sliders.
    notebook.cells = [cell for cell in notebook.cells if not {EXPLORER, *skip} & set(pairs.tags(cell))]
    # Papermill warns of parameters that the notebook's cell does not have (`presets.plan` has checked them). It and
    # asyncio also report a dead kernel on their own, at times one that was ended on purpose: by Ctrl-C, or since
    # nobody reads its output any more.
    for library in ("papermill", "asyncio"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
    try:
        papermill.execute_notebook(
            notebook,
            str(target).replace("{", "{{").replace("}", "}}"),  # papermill fills braces in
            parameters,
            kernel_name=executor.KERNEL,
            cwd=root / "notebooks",
            progress_bar=False,
            start_timeout=executor.START_SECONDS,
            execution_timeout=seconds,
            extra_arguments=[*executor.QUIET, *kernel],
            config=Config({"KernelManager": {"shutdown_wait_time": executor.SAVE_SECONDS}}),
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
    except RuntimeError as error:  # of jupyter_client, for one that never answers
        raise ValueError(f"{name}: its Python process did not start ({' '.join(str(error).split())})") from error
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            target.unlink(missing_ok=True)  # half of it
        reason = f"{error.filename or shown}: cannot be written ({error.strerror or error})"
        raise ValueError(f"{reason}; free space, or choose a different run_dir") from error


def run(root: Path) -> None:
    """Runs chapters 00 to 09 on the embedded data into `runs/book/`, then prints the score table.

    A chapter that fails does not keep the others from being run.

    Raises:
        ValueError: chapters failed, or none wrote the score table.
    """
    kept.refresh(root)
    out = root / "runs" / "book"
    scores = out / "scores.json"
    scores.unlink(missing_ok=True)  # the table printed below is this run's
    names = pairs.runnable(root / "notebooks")
    shown = os.path.relpath(out, root)
    print(f"Each chapter is left in {shown}/ with its figures as soon as it is done; look at the first one while the")
    print(f"others are run: .venv/bin/jupyter lab {shown}/{names[0]}.ipynb\n", flush=True)
    failed: dict[str, ValueError] = {}
    begun = time.perf_counter()
    for name in names:
        target, log = out / f"{name}.ipynb", out / f"{name}.log"
        target.unlink(missing_ok=True)
        with progress.Line(name, partial(doing, target, log)) as line:
            try:
                execute(root, name, out, {}, seconds=executor.CELL_SECONDS, kernel=[log_into(log)])
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
    return executor.log_to(f"logging.FileHandler({str(path)!r})")


def doing(notebook: Path, log: Path) -> str:
    """What an executing chapter is at: the number of its cell, and the last line of the library's log.

    Args:
        notebook: that papermill writes after each cell.
        log: see `log_into`; forgotten when the cell that wrote it is done.
    """
    for _ in range(READS):
        try:
            cells = json.loads(notebook.read_text("utf-8"))["cells"]
            break
        except FileNotFoundError:
            return "starting"
        except (OSError, ValueError):  # it is being written
            time.sleep(0.1)
    else:
        return "at work"
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
    width = max(len(row["name"]) for row in rows)
    lines = [" " * width + "".join(f"  {title}" for title in COLUMNS.values())]
    for row in rows:
        line = f"{row['name']:<{width}}"
        for key, title in COLUMNS.items():
            text = "-" if row[key] is None else f"{100 * row[key]:.1f}"
            line += f"  {text:>{len(title)}}"
        lines.append(line)
    return "\n".join(lines)
