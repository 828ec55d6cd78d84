"""`make portable`: do all checks pass on other processors?

Four arithmetic profiles represent different machines; each rounds differently, and training amplifies rounding. Under
each, the tests marked `arithmetic` and all chapters are run. Chapters that compare a number with a bound (cells tagged
`bound`) are run again with more seeds. A bound has to be 3 spreads or more away from what was found.
"""

import ast
import hashlib
import json
import math
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import nbformat

import executor
import pairs
import progress
import running
from cells import BOUND, PARAMETERS

PROFILES: dict[str, dict[str, str]] = {
    "default": {},
    "sse41": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"},
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_CBWR": "COMPATIBLE"},
    "one_thread": {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
}
SEEDS = (1, 2, 3)
SPREADS = 3.0  # between a bound and the mean of what was found
RESULTS = "notebooks/results/portable.json"
TABLE = ("08_evaluation",)  # makes the score table of `make run`
# The first cell of a chapter's copy: what the chapter compares with a bound is written down for the table.
RECORD = """
import json, operator

def compared(claim, left, sign, right, constant):
    \"\"\"The result of a comparison; both sides are written down.\"\"\"
    with open({path!r}, "a") as file:
        file.write(json.dumps([claim, float(left), sign, float(right), constant]) + "\\n")
    return {{"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}}[sign](left, right)
"""
SEEDED = """
import dataclasses

from alignedreid_lib import book

book.CONFIG = dataclasses.replace(book.CONFIG, seed={seed})
"""


def run(root: Path) -> None:
    """Runs what was not run yet under every profile, prints the table of bounds and keeps it in RESULTS.

    The first pass has all cores; the others are run two at a time, with a thread each.

    Raises:
        ValueError: something failed, or a bound is too near.
    """
    todo = [(profile, seed) for profile, seed, _ in passes(root)]
    run_pass(root, *todo[0])
    one_thread = os.environ | PROFILES["one_thread"]

    def start(profile: str, seed: int) -> None:
        command = [sys.executable, "notebooks/book/tool.py", "portable-pass", profile, str(seed)]
        subprocess.run(command, cwd=root, env=one_thread, check=False)  # what failed is read from its files

    with ThreadPoolExecutor(2) as pool:
        for _ in pool.map(lambda given: start(*given), todo[1:]):
            pass
    failed, found = [], []
    for profile, seed, names in passes(root):
        for name in names:
            state = read(folder_of(root, profile, seed) / f"{name}.json") or {"error": f"{name} was not run"}
            if state["error"]:
                failed.append(f"{profile}, seed {seed}: {state['error']}")
            found += [(profile, seed, name, *row) for row in state.get("bounds", [])]
    rows = table(found)
    print(f"\n{markdown(rows)}\n")
    content = {"machine": machine(), "profiles": PROFILES, "scores": scores(root), "bounds": rows}
    (root / RESULTS).write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    near = [f"{row['chapter']}: {row['claim']}, spreads away: {spreads_of(row)}" for row in rows if row["near"]]
    if failed or near:
        raise ValueError("\n".join([f"{len(failed)} failed, {len(near)} bounds are too near:", *failed, *near]))
    print(f"all are true; {RESULTS} contains the table")


def run_pass(root: Path, profile: str, seed: int) -> None:
    """Runs the chapters of one profile and seed that were not run yet, or failed."""
    names = next(names for one, other, names in passes(root) if (one, other) == (profile, seed))
    folder = project(root, profile, seed, digest(root))
    for name in names:
        state = read(folder / f"{name}.json")
        if state is None or state["error"]:
            work(folder, profile, seed, name, root)


def passes(root: Path) -> Iterator[tuple[str, int, list[str]]]:
    """(profile, seed, names) of all that is to be run; `tests` stands for the tests of arithmetic.

    All chapters run once under each profile. More seeds cost a training of the book's model each: by default they are
    tried with every chapter that has a bound, under the other profiles with the chapter that makes the score table.
    """
    names = pairs.chapters(root / "notebooks")
    bounded = [n for n in names if any(BOUND in pairs.tags(cell) for cell in read_chapter(root, n).cells)]
    for profile in PROFILES:
        yield profile, SEEDS[0], ["tests", *names]
    for profile in list(PROFILES)[1:]:
        yield profile, SEEDS[1], [name for name in bounded if name in TABLE]
    for seed in SEEDS[1:]:
        yield "default", seed, bounded


def parameters_of(notebook: Any) -> dict[str, Any]:
    """The names and values of a chapter's parameters, none where it has no such cell."""
    return pairs.parameters(notebook) if any(PARAMETERS in pairs.tags(cell) for cell in notebook.cells) else {}


def read_chapter(root: Path, name: str) -> Any:
    """A committed chapter."""
    return nbformat.read(root / "notebooks" / f"{name}.ipynb", as_version=4)


def folder_of(root: Path, profile: str, seed: int) -> Path:
    """Where a pass has its project and its results."""
    return root / "runs" / "portable" / f"{profile}_seed{seed}"


def project(root: Path, profile: str, seed: int, library: str) -> Path:
    """A folder that chapters take for the project, with runs of its own; emptied when the code has changed since."""
    folder = folder_of(root, profile, seed)
    mark = folder / "digest"
    if not mark.exists() or mark.read_text() != library:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        shutil.copy(root / "pyproject.toml", folder)
        shutil.copytree(root / "notebooks", folder / "notebooks")
        (root / "data").mkdir(exist_ok=True)
        for shared in ("alignedreid_lib", "data"):
            (folder / shared).symlink_to(root / shared)
        mark.write_text(library)
    return folder


def work(folder: Path, profile: str, seed: int, name: str, root: Path) -> None:
    """Runs one chapter, or the tests, under a profile, and writes down what came of it."""
    bounds = folder / "bounds.jsonl"
    bounds.unlink(missing_ok=True)
    error = None
    target, log = folder / "runs" / "book" / f"{name}.ipynb", folder / f"{name}.log"
    target.unlink(missing_ok=True)
    title = f"{profile} {seed} {name[:2] if name[:2].isdigit() else name}"
    began = time.perf_counter()
    doing = partial(running.doing, target, log) if name != "tests" else lambda: "pytest -m arithmetic"
    with environment(PROFILES[profile]), progress.Line(title, doing) as line:
        try:
            if name == "tests":
                run_tests(root)
            else:
                prepare(folder, name, seed, bounds)
                seeded = seed != SEEDS[0] and "seed" in parameters_of(read_chapter(root, name))
                parameters = {"seed": seed} if seeded else {}
                kernel = [running.log_into(log)]
                running.execute(folder, name, target.parent, parameters, seconds=executor.CELL_SECONDS, kernel=kernel)
        except ValueError as failure:
            error = line.ending = str(failure)
    log.unlink(missing_ok=True)
    lines = bounds.read_text().splitlines() if bounds.exists() else []
    state = {"error": error, "seconds": time.perf_counter() - began, "bounds": [json.loads(text) for text in lines]}
    (folder / f"{name}.json").write_text(json.dumps(state))


def run_tests(root: Path) -> None:
    """The tests marked `arithmetic`.

    Raises:
        ValueError: some failed, with pytest's last lines.
    """
    command = [sys.executable, "-m", "pytest", "tests", "--ignore=tests/browser", "-m", "arithmetic", "-p", "no:xdist"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    if done.returncode:
        raise ValueError("tests: " + " | ".join(done.stdout.strip().splitlines()[-12:]))


def prepare(folder: Path, name: str, seed: int, bounds: Path) -> None:
    """Changes the copy of a chapter: its bounds are written down, the book's model comes from a second seed."""
    path = folder / "notebooks" / f"{name}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    first = RECORD.format(path=str(bounds)) + (SEEDED.format(seed=seed) if seed != SEEDS[0] else "")
    if notebook.cells[0].metadata.get("portable"):
        notebook.cells[0].source = first
    else:
        for cell in notebook.cells:
            if cell.cell_type == "code" and BOUND in pairs.tags(cell):
                cell.source = recorded(cell.source)
        notebook.cells.insert(0, nbformat.v4.new_code_cell(first, metadata={"portable": True}))
    nbformat.write(notebook, path)


def recorded(source: str) -> str:
    """A cell whose asserted comparisons of two numbers are written down by `compared` when they are made.

    Raises:
        ValueError: an assert of a different kind.
    """

    class Recorder(ast.NodeTransformer):
        def visit_Assert(self, node: ast.Assert) -> ast.Assert:
            test = node.test
            signs = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="}
            if not isinstance(test, ast.Compare) or any(type(op) not in signs for op in test.ops):
                raise ValueError(f"an assert of a cell tagged `bound` compares numbers: {ast.unparse(test)}")
            sides = [test.left, *test.comparators]
            calls: list[ast.expr] = []
            for left, op, right in zip(sides, test.ops, sides[1:], strict=False):
                if isinstance(left, ast.Constant):
                    raise ValueError(f"the bound has to be on the right: {ast.unparse(test)}")
                claim = ast.Constant(ast.unparse(ast.Compare(left, [op], [right])))
                given = [claim, left, ast.Constant(signs[type(op)]), right]
                given.append(ast.Constant(isinstance(right, ast.Constant)))
                calls.append(ast.Call(ast.Name("compared", ast.Load()), given, []))
            node.test = calls[0] if len(calls) == 1 else ast.BoolOp(ast.And(), calls)
            return node

    return ast.unparse(ast.fix_missing_locations(Recorder().visit(ast.parse(source))))


def table(found: list[tuple]) -> list[dict[str, Any]]:
    """A row for each bound: what was found over profiles and seeds, and how many spreads are between.

    Where the bound is itself computed, the difference of both sides is compared with 0.
    """
    values: dict[tuple[str, str, int], list[float]] = {}
    bound_of: dict[tuple[str, str, int], tuple[float, float]] = {}
    seen: dict[tuple, int] = {}
    for profile, seed, chapter, claim, left, sign, right, constant in found:
        count = seen[profile, seed, chapter, claim] = seen.get((profile, seed, chapter, claim), 0) + 1
        key = chapter, claim, count  # in a loop one assert makes several
        values.setdefault(key, []).append(left if constant else left - right)
        bound_of[key] = (right if constant else 0.0), (1.0 if sign.startswith(">") else -1.0)
    rows = []
    for (chapter, claim, count), numbers in values.items():
        bound, direction = bound_of[chapter, claim, count]
        spread = statistics.stdev(numbers) if len(numbers) > 1 else math.nan
        away = direction * (statistics.mean(numbers) - bound)
        spreads = away / spread if spread > 0 else math.copysign(math.inf, away)
        rows.append(
            {
                "chapter": chapter,
                "claim": claim + (f" ({count})" if (chapter, claim, 2) in values else ""),
                "bound": bound,
                "values": [round(number, 6) for number in numbers],
                "spread": spread,
                "spreads": spreads if math.isfinite(spreads) else None,
                "near": not spreads >= SPREADS,
            }
        )
    return sorted(rows, key=lambda row: (row["chapter"], row["claim"]))


def spreads_of(row: dict[str, Any]) -> str:
    """A row's distance between what was found and the bound; what never varied has none."""
    if row["spreads"] is None:
        return "not true" if row["near"] else "exact"
    return f"{row['spreads']:.1f}"


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table of bounds."""
    lines = [
        "| chapter | claim | bound | found, lowest to highest | runs | spreads away |",
        "|---|---|--:|---|--:|--:|",
    ]
    for row in rows:
        low, high = min(row["values"]), max(row["values"])
        away = spreads_of(row)
        cells = [row["chapter"][:2], f"`{row['claim']}`", f"{row['bound']:.4g}", f"{low:.4g} to {high:.4g}"]
        lines.append(f"| {' | '.join([*cells, str(len(row['values'])), away])} |")
    return "\n".join(lines)


def scores(root: Path) -> dict[str, list[dict[str, Any]]]:
    """The table of `make run` of every profile and seed."""
    found = {}
    for path in sorted((root / "runs" / "portable").glob("*_seed*/runs/book/scores.json")):
        content = json.loads(path.read_text())["rows"]
        keys = ("name", *running.COLUMNS)
        found[path.parents[2].name] = [{key: row[key] for key in keys} for row in content]
    return found


def digest(root: Path) -> str:
    """What the results depend on: the library, the tests, the chapters' code, the versions, the processor."""
    found = hashlib.sha256(json.dumps(machine()).encode())
    for path in sorted([*(root / "alignedreid_lib").rglob("*.py"), *(root / "tests").glob("*.py")]):
        found.update(path.name.encode() + path.read_bytes())
    for name in pairs.chapters(root / "notebooks"):
        code = [cell.source for cell in read_chapter(root, name).cells if cell.cell_type == "code"]
        found.update("\0".join([name, *code]).encode())
    return found.hexdigest()


def machine() -> dict[str, str]:
    """What computed: the processor, and the versions of what decides the numbers."""
    from importlib.metadata import version

    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    kinds = [kind for kind in ("avx2", "avx512f", "avx512_bf16", "amx_tile") if f" {kind} " in flags]
    versions = {name: version(name) for name in ("torch", "torchvision", "numpy")}
    return {"processor": f"{platform.machine()} {' '.join(kinds)}".strip(), "cores": str(os.cpu_count()), **versions}


@contextmanager
def environment(variables: dict[str, str]) -> Iterator[None]:
    """Inside, processes are started with these environment variables."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def read(path: Path) -> dict[str, Any] | None:
    """What an earlier call wrote of a chapter, None where it did not get there."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None
