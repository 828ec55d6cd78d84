"""Every check of the project, one stage after another: what `make test` runs."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from xml.etree import ElementTree

import pairs

STAGES: list[tuple[str, list[str]]] = [  # title, and what follows `python` in each command
    ("Style and types", ["-m ruff check .", "-m ruff format --check .", "-m mypy"]),
    ("Unit tests and pairs", ["-m pytest tests --ignore=tests/browser --durations=5"]),
    (
        "Chapters, cell by cell",
        [
            "notebooks/book/tool.py unfold",
            "-m pytest build/chapters --nbval-lax --nbval-current-env"
            f" --nbval-cell-timeout={pairs.CELL_SECONDS} --nbval-kernel-startup-timeout={pairs.START_SECONDS}",
        ],
    ),
    ("The site", ["notebooks/book/tool.py site"]),
    ("The site in a browser", ["-m pytest tests/browser"]),
]


def run_all(root: Path, stages: list[tuple[str, list[str]]] = STAGES) -> None:
    """Runs all stages, whatever fails, each with its seconds, and exits with 1 if anything failed.

    The last line counts: a test of pytest is one check, and so is a command that is not pytest.
    """
    total = {"passed": 0, "failed": 0, "skipped": 0}
    for title, commands in stages:
        print(f"\n== {title}", flush=True)
        start = time.perf_counter()
        for command in commands:
            for key, number in _run(root, command.split()).items():
                total[key] += number
        print(f"   {time.perf_counter() - start:.0f} s", flush=True)
    print("\n" + ", ".join(f"{number} {key}" for key, number in total.items()))
    if total["failed"]:
        sys.exit(1)


def _run(root: Path, command: list[str]) -> dict[str, int]:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        extra = [f"--junitxml={report}"] if "pytest" in command else []
        code = subprocess.run([sys.executable, *command, *extra], cwd=root).returncode
        if not report.exists():
            return {"failed": 1} if code or extra else {"passed": 1}
        suites = list(ElementTree.parse(report).iter("testsuite"))
    tests, failed, skipped = (
        sum(int(suite.get(key, 0)) for suite in suites for key in keys)
        for keys in (("tests",), ("failures", "errors"), ("skipped",))
    )
    # where pytest fails without naming a test (it found none, say), that is one failure
    return {"passed": tests - failed - skipped, "failed": failed or int(code != 0), "skipped": skipped}
