"""The pairs: a chapter's `.py` (percent format) is its source, the `.ipynb` beside it derived and executed.

`update` writes the second from the first; `problems` compares them and looks for what must not be committed.
"""

import ast
import os
import re
import shutil
import time
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from cells import ORDER, alt_text, arrangement, check_syntax, content, digest, edited, has_figure, read, tags

MAX_BYTES = 600_000
MIN_ASSERTS = 3
CELL_SECONDS = 600
START_SECONDS = 180  # a kernel on a busy machine is slow to answer first
QUIET_KERNEL = ["--log-level=CRITICAL"]  # else each kernel warns that it listens on this machine's TCP
KEPT_METADATA = ("tags", "alt", "caption", "label")
NOTEBOOK_METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python", "pygments_lexer": "ipython3"},
}
SOLUTION = re.compile(r"^:::\{dropdown\} Solution\n(.*?)^:::$", re.DOTALL | re.MULTILINE)
PROGRAM = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
MACHINE_PATH = re.compile(r"(?<![\w.:/<])/(?:home|Users|root|work|tmp|mnt|opt|var|usr|content)/|[A-Z]:\\+Users")


def chapters(folder: Path) -> list[str]:
    """The names of all chapters that have a `.py` or an `.ipynb`, in order."""
    return sorted({p.stem for suffix in ("py", "ipynb") for p in folder.glob(f"[0-9][0-9]_*.{suffix}")})


def parameters(notebook: Any) -> dict[str, Any]:
    """The names and values that the cell tagged `parameters` assigns.

    Raises:
        ValueError: there is no such cell, or it contains more than `name = literal`.
    """
    cell = next((c for c in notebook.cells if c.cell_type == "code" and "parameters" in tags(c)), None)
    if cell is None:
        raise ValueError("no code cell is tagged `parameters`")
    found: dict[str, Any] = {}
    try:
        lines = ast.parse(cell.source).body
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"the parameters cell is not Python: {error}") from error
    for line in lines:
        match line:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                pass
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                pass
            case _:
                raise ValueError(f"line {line.lineno} of the parameters cell is not `name = literal`")
        try:
            found[name] = ast.literal_eval(value)
        except ValueError as error:
            raise ValueError(f"line {line.lineno} of the parameters cell: {name} is not a literal") from error
    return found


def _executed(notebook: Any) -> bool:
    return all(c.execution_count for c in notebook.cells if c.cell_type == "code")


def update(folder: Path, name: str, force: bool = False) -> bool:
    """Writes `name`.ipynb from `name`.py and executes it, if its cells changed or it was never executed.

    Where only prose changed, the code keeps the outputs that it had.

    Returns:
        whether the notebook was written.

    Raises:
        ValueError: a cell failed, wrote to stderr or is not Python, or the notebook was edited by itself; the notebook
            that was there is left as it was.
    """
    target = folder / f"{name}.ipynb"
    source = read(folder / f"{name}.py")
    if target.exists():
        old = read(target)
        here, there = list(map(content, source.cells)), list(map(content, old.cells))
        if here != there and (what := edited(old, kept=here)):
            raise ValueError(
                f"{name}.ipynb: {what} was edited there and is not so in {name}.py; copy the edit into the .py (if the "
                f".py has none of its own: .venv/bin/jupytext --to py:percent {os.path.relpath(target)}), or delete "
                "the .ipynb to drop it"
            )
        if here == there and _executed(old) and not edited(old) and not force:
            return False
        kept = not force and _executed(old) and not edited(old) and _keep_outputs(source, old)
    else:
        kept = False
    check_syntax(name, source)
    seen: dict[str, int] = {}
    for cell in source.cells:
        # Ids follow the content, so that an unchanged cell keeps its id and a diff shows what changed.
        found = digest(cell)
        seen[found] = seen.get(found, 0) + 1
        cell.id = found if seen[found] == 1 else f"{found}-{seen[found]}"
        cell.metadata = {key: cell.metadata[key] for key in KEPT_METADATA if key in cell.metadata}
    notebook = nbformat.v4.new_notebook(cells=source.cells, metadata=NOTEBOOK_METADATA, nbformat_minor=5)
    if not kept:
        _execute(notebook, folder, name)
    for number, cell in enumerate(notebook.cells, 1):
        for output in cell.get("outputs", []):
            if output.get("name") == "stderr":
                raise ValueError(f"{name}: cell {number} writes to stderr: {output.text.strip()}")
            if "metadata" in output:
                output.metadata = {}
        if "explorer" in tags(cell):
            cell.outputs = []  # a widget is nothing without its kernel
    notebook.metadata = NOTEBOOK_METADATA | {ORDER: arrangement(notebook)}
    beside = target.with_suffix(".ipynb.tmp")
    try:
        nbformat.write(notebook, beside)
        os.replace(beside, target)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise ValueError(f"{target.name}: cannot be written ({error.strerror or error}); free space") from error
    return True


def _keep_outputs(source: Any, old: Any) -> bool:
    """Gives the code of `source` the outputs of `old`, if it is the same code; whether it is."""
    codes = [[cell for cell in notebook.cells if cell.cell_type == "code"] for notebook in (source, old)]
    same = [[(cell.source.rstrip(), sorted(tags(cell))) for cell in cells] for cells in codes]
    if same[0] != same[1]:
        return False
    for cell, before in zip(*codes, strict=True):
        cell.outputs, cell.execution_count = before.outputs, before.execution_count
    return True


def _execute(notebook: Any, folder: Path, name: str) -> None:
    """Runs all cells in a fresh kernel; raises ValueError where one fails."""
    client = NotebookClient(
        notebook,
        timeout=CELL_SECONDS,
        startup_timeout=START_SECONDS,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        extra_arguments=QUIET_KERNEL,
        record_timing=False,
        coalesce_streams=True,
    )
    client.comm_open_handlers = {}  # nobody answers widgets: answering can lose a cell's end (nbclient issue 312)
    try:
        client.execute()
    except CellExecutionError as error:
        raise ValueError(f"{name}: a cell failed\n{error}") from error


def update_all(folder: Path, only: str = "", force: bool = False) -> None:
    """`update` for every chapter whose name begins with `only`, a line each."""
    names = [n for n in chapters(folder) if n.startswith(only) and (folder / f"{n}.py").exists()]
    if not names:
        raise ValueError(f"no chapter begins with {only!r}; there are: {', '.join(chapters(folder)) or 'none'}")
    for name in names:
        start = time.perf_counter()
        written = update(folder, name, force)
        state = f"written in {time.perf_counter() - start:.0f} s" if written else "up to date"
        print(f"{name}: {state}", flush=True)


def unfold_solutions(folder: Path, target: Path) -> None:
    """Copies of all chapters with the code of their folded solutions as cells at the end, to be run with the rest."""
    target.mkdir(parents=True, exist_ok=True)
    shutil.copy(folder / "matplotlibrc", target)
    for name in chapters(folder):
        notebook = nbformat.read(folder / f"{name}.ipynb", as_version=4)
        prose = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
        solutions = [solution[1] for text in prose for solution in SOLUTION.finditer(text)]
        for program in PROGRAM.finditer("\n".join(solutions)):
            notebook.cells.append(nbformat.v4.new_code_cell(program[1]))
        nbformat.write(notebook, target / f"{name}.ipynb")


def problems(folder: Path, name: str) -> list[str]:
    """What is wrong with a committed pair, a line each with file and cell; empty where all is well."""
    paths = {suffix: folder / f"{name}.{suffix}" for suffix in ("py", "ipynb")}
    if missing := [path.name for path in paths.values() if not path.exists()]:
        return [f"{missing[0]}: missing; `make pairs ONLY={name}` makes the .ipynb of a .py"]
    try:
        notebook, source = read(paths["ipynb"]), read(paths["py"])
    except ValueError as error:
        return [str(error)]
    found = _pairing(source, notebook)
    counts = [c.execution_count for c in notebook.cells if c.cell_type == "code"]
    if None not in counts and counts != list(range(1, len(counts) + 1)):
        found.append("its cells were not executed once each, from the first to the last")
    for number, cell in enumerate(notebook.cells, 1):
        if cell.cell_type == "code":
            found += [f"cell {number}: {problem}" for problem in _cell_problems(cell)]
    if name < "10":
        try:
            parameters(notebook)
        except ValueError as error:
            found.append(str(error))
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    asserts = sum(bool(re.search(r"^\s*assert\b", source, re.M)) for source in code)
    if asserts < MIN_ASSERTS:
        found.append(f"{asserts} cells contain an assert; a chapter has {MIN_ASSERTS} or more")
    if (size := paths["ipynb"].stat().st_size) > MAX_BYTES:
        found.append(f"{size / 1000:.0f} kB; a notebook has {MAX_BYTES // 1000} kB at most")
    return [f"{name}.ipynb: {problem}" for problem in found]


def _pairing(source: Any, notebook: Any) -> list[str]:
    ours, theirs = list(map(content, source.cells)), list(map(content, notebook.cells))
    for number, (a, b) in enumerate(zip(ours, theirs, strict=False), 1):
        if a != b:
            what = [
                n for n, x, y in zip(("type", "source", "tags", "alt or caption", "label"), a, b, strict=True) if x != y
            ]
            return [f"cell {number}: {' and '.join(what)} not as in the .py (`make pairs` writes the .ipynb)"]
    if len(ours) != len(theirs):
        return [f"{len(theirs)} cells, the .py has {len(ours)} (`make pairs` writes the .ipynb)"]
    return []


def _word_problems(cell: Any) -> list[str]:
    """What is wrong with the words of a figure: the alt describes it, the caption claims something about it."""
    alt, caption = alt_text(cell), str(cell.metadata.get("caption", ""))
    found = []
    if not alt:
        found.append('its figure has no words: give the cell an alt="..." or begin it with a comment')
    if not caption:
        found.append('its figure has no caption: give the cell a caption="...", one claim')
    if caption and caption.rstrip(".").lower() == alt.rstrip(".").lower():
        found.append("its caption is its alt: the alt describes the figure, the caption makes one claim")
    found += [f"its words end in '..': {words}" for words in (alt, caption) if words.endswith("..")]
    if caption and not caption.endswith((".", "?")):
        found.append(f"its caption does not end in '.' or '?': {caption}")
    return found


def _cell_problems(cell: Any) -> list[str]:
    found = _word_problems(cell) if has_figure(cell) else []
    if not cell.execution_count:
        found.append("not executed")
    for output in cell.outputs:
        data = output.get("data", {})
        if output.output_type == "error":
            found.append(f"holds an error ({output.ename})")
        elif output.get("name") == "stderr":
            found.append("holds stderr output")
        if pictures := [kind for kind in data if kind.startswith("image/") and kind != "image/svg+xml"]:
            found.append(f"holds {pictures[0]}; figures are SVG (`figures.Figure`)")
        text = "".join([output.get("text", ""), *(str(v) for k, v in data.items() if k.startswith("text/"))])
        if path := MACHINE_PATH.search(text):
            found.append(f"its output names a path of a machine ({text[path.start() :].split()[0]})")
    return found
