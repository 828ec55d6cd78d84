"""Every check of the project, one stage after another: what `make test` runs."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import executor
import pairs
import progress

AT_ONCE = 2  # chapters, after the first, which trains the model that the others find


@dataclass(frozen=True)
class Check:
    """What follows `python` in a command, and how it is shown: by its own output, or by a line of `title`."""

    command: str
    title: str = ""


Stage = tuple[str, Callable[[Path], list[Check]]]


def chapters(root: Path) -> list[Check]:
    """A check for each chapter, its solutions at its end; the copies are made first."""
    names = pairs.chapters(root / "notebooks")
    return [
        Check("notebooks/book/tool.py unfold", "solutions"),
        *(Check(f"-m pytest build/chapters/{name}.ipynb {executor.NBVAL}", name) for name in names),
    ]


def fixed(*commands: str) -> Callable[[Path], list[Check]]:
    """A stage of commands that show their own output."""
    return lambda root: [Check(command) for command in commands]


STAGES: list[Stage] = [
    ("Style and types", fixed("-m ruff check .", "-m ruff format --check .", "-m mypy")),
    ("Unit tests and pairs", fixed("-m pytest tests --ignore=tests/browser --durations=5 -n 2 --dist worksteal")),
    ("Chapters, cell by cell", chapters),
    ("The site", fixed("notebooks/book/tool.py site")),
    ("The site in a browser", fixed("-m pytest tests/browser")),
]


def run_all(root: Path, stages: list[Stage] = STAGES) -> None:
    """Runs all stages, whatever fails, each with its seconds, and exits with 1 if anything failed.

    The last line counts: a test of pytest is one check, and so is a command that is not pytest.
    """
    total = {"passed": 0, "failed": 0, "skipped": 0}
    for number, (title, make) in enumerate(stages, 1):
        print(f"\n== {number} of {len(stages)}: {title}", flush=True)
        start = time.perf_counter()
        checks = make(root)
        quiet, shown = [c for c in checks if c.title], [c for c in checks if not c.title]
        found = [_run(root, check.command) for check in shown]
        found += _run_quietly(root, quiet) if quiet else []
        for counts in found:
            for key, count in counts.items():
                total[key] += count
        print(f"   {time.perf_counter() - start:.0f} s", flush=True)
    print("\n" + ", ".join(f"{number} {key}" for key, number in total.items()))
    if total["failed"]:
        sys.exit(1)


def _run_quietly(root: Path, checks: list[Check]) -> Iterator[dict[str, int]]:
    """Runs the first two alone and the rest two at a time, on half of the processor each; a line when one is done."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = os.environ | {
        name: str(max(1, cores // AT_ONCE)) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    }
    at_work: list[str] = []

    def work(check: Check, environment: dict[str, str] | None) -> tuple[dict[str, int], str, float]:
        at_work.append(check.title)
        began = time.perf_counter()
        try:
            return *_run_captured(root, check.command, environment), time.perf_counter() - began
        finally:
            at_work.remove(check.title)

    alone = min(2, len(checks))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for k, check in enumerate(checks):
            if k == alone:
                later = [pool.submit(work, other, share) for other in checks[alone:]]
            with progress.Line(check.title, lambda: "at work: " + ", ".join(at_work)) as line:
                counts, output, seconds = work(check, None) if k < alone else later[k - alone].result()
                line.began = time.perf_counter() - seconds  # its own, not those that were waited for it
                line.ending = ", ".join(f"{count} {key}" for key, count in counts.items() if count)
            if counts["failed"]:
                print(output, flush=True)
            yield counts


def _run(root: Path, command: str) -> dict[str, int]:
    """Runs a command that shows its own output; its counts."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        code = subprocess.run(_words(command, report), cwd=root).returncode
        return _counts(code, report, "pytest" in command)


def _run_captured(root: Path, command: str, environment: dict[str, str] | None) -> tuple[dict[str, int], str]:
    """Runs a command; its counts and what it printed."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        done = subprocess.run(
            _words(command, report),
            cwd=root,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        return _counts(done.returncode, report, "pytest" in command), done.stdout


def _words(command: str, report: Path) -> list[str]:
    extra = [f"--junitxml={report}"] if "pytest" in command else []
    return [sys.executable, *command.split(), *extra]


def _counts(code: int, report: Path, is_pytest: bool) -> dict[str, int]:
    """How many checks a command was, by its exit code or pytest's report."""
    if not report.exists():
        failed = int(code != 0 or is_pytest)
        return {"passed": 1 - failed, "failed": failed, "skipped": 0}
    suites = list(ElementTree.parse(report).iter("testsuite"))
    tests, failed, skipped = (
        sum(int(suite.get(key, 0)) for suite in suites for key in keys)
        for keys in (("tests",), ("failures", "errors"), ("skipped",))
    )
    # where pytest fails without naming a test (it found none, say), that is one failure
    return {"passed": tests - failed - skipped, "failed": failed or int(code != 0), "skipped": skipped}
