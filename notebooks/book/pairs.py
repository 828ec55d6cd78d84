"""The pairs: a chapter's `.py` (percent format) is its source, the `.ipynb` is derived from it and executed.

`update` writes the second from the first; `problems` compares them and looks for what must not be committed.
"""

import ast
import re
import shutil
import time
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

import executor
import kept
import made_from
from cells import (
    EXPLORER,
    MADE_FROM,
    ORDER,
    PARAMETERS,
    PARTS,
    alt_text,
    arrangement,
    chapters,
    check_syntax,
    content,
    edited,
    executed,
    has_figure,
    identify,
    read,
    replace,
    runnable,
    tags,
    write_source,
)

MAX_BYTES = 1_000_000  # the site has 30 MB
MIN_ASSERTS = 3
SOLUTION = re.compile(r"^:::\{dropdown\} Solution\n(.*?)^:::$", re.DOTALL | re.MULTILINE)
PROGRAM = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
MACHINE_PATH = re.compile(r"(?<![\w.:/<])/(?:home|Users|root|work|tmp|mnt|opt|var|usr|content)/|[A-Z]:\\+Users")


def parameters(notebook: Any) -> dict[str, Any]:
    """The names and values that the cell tagged `parameters` assigns.

    Raises:
        ValueError: there is no such cell, or it contains more than `name = literal`.
    """
    cell = next((c for c in notebook.cells if c.cell_type == "code" and PARAMETERS in tags(c)), None)
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


def update(folder: Path, name: str, force: bool = False, keep: str = "") -> bool:
    """Writes `name`.ipynb from `name`.py and executes it, if its code, or what it was made from, is not as it was.

    Where only prose changed, the code keeps the outputs that it had. An edit that was made in the `.ipynb` alone is
    brought to the `.py` first.

    Args:
        keep: the side, "py" or "ipynb", that counts where both were edited; the edits of the other one are lost.

    Returns:
        whether the notebook was written.

    Raises:
        ValueError: both sides were edited, or a cell failed, wrote to stderr or is not Python; the notebook that was
            there is left as it was.
    """
    target = folder / f"{name}.ipynb"
    source = read(folder / f"{name}.py")
    old = read(target) if target.exists() else None
    if old is not None and _bring(source, old, folder / f"{name}.py", keep):
        source = read(folder / f"{name}.py")
    identify(source)
    check_syntax(name, source)
    made = made_from.record(folder.parent, _code(source))
    keeps = False
    if old is not None and not force and executed(old) and old.metadata.get(MADE_FROM) == made:
        same = list(map(content, source.cells)) == list(map(content, old.cells))
        if same and ORDER in old.metadata and not edited(old):
            return False
        keeps = _keep_outputs(source, old)
    notebook = nbformat.v4.new_notebook(cells=source.cells, metadata=executor.NOTEBOOK_METADATA, nbformat_minor=5)
    if not keeps:
        _execute(notebook, folder, name)
    for number, cell in enumerate(notebook.cells, 1):
        for output in cell.get("outputs", []):
            if output.get("name") == "stderr":
                raise ValueError(f"{name}: cell {number} writes to stderr: {output.text.strip()}")
            if "metadata" in output:
                output.metadata = {}
        if EXPLORER in tags(cell):
            cell.outputs = []  # a widget is nothing without its kernel
    notebook.metadata = executor.NOTEBOOK_METADATA | {ORDER: arrangement(notebook), MADE_FROM: made}
    replace(target, lambda beside: nbformat.write(notebook, beside))
    return True


def _code(notebook: Any) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def _bring(source: Any, old: Any, path: Path, keep: str) -> bool:
    """Writes the `.py` where only the `.ipynb` was edited, or is to be kept; returns True if it did.

    Raises:
        ValueError: both were edited, and `keep` does not choose.
    """
    here, there = list(map(content, source.cells)), list(map(content, old.cells))
    what = edited(old, kept=here) if here != there else ""
    if not what or keep == "py":
        return False
    identify(source)
    if keep != "ipynb" and arrangement(source) != old.metadata.get(ORDER):
        raise ValueError(
            f"{path.stem}: {what} was edited in the .ipynb, and the .py was changed, too; copy one edit to the other "
            f"file, or choose the file that counts: make pairs ONLY={path.stem} KEEP=ipynb (or KEEP=py)"
        )
    write_source(old, path)
    print(f"{path.stem}: {what} was edited in the .ipynb, and the .py has the edit now", flush=True)
    return True


def _keep_outputs(source: Any, old: Any) -> bool:
    """Gives the code of `source` the outputs of `old`, and returns True, if it is the same code."""
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
        timeout=executor.CELL_SECONDS,
        startup_timeout=executor.START_SECONDS,
        kernel_name=executor.KERNEL,
        resources={"metadata": {"path": str(folder)}},
        extra_arguments=executor.QUIET,
        record_timing=False,
        coalesce_streams=True,
    )
    client.comm_open_handlers = {}  # nobody answers widgets: answering can lose a cell's end (nbclient issue 312)
    try:
        client.execute()
    except CellExecutionError as error:
        raise ValueError(f"{name}: a cell failed\n{error}") from error


def update_all(folder: Path, only: str = "", force: bool = False, keep: str = "") -> None:
    """`update` for every chapter whose name begins with `only`, a line each."""
    if keep and not only:
        raise ValueError("KEEP chooses for one chapter; name it: make pairs ONLY=name KEEP=py (or KEEP=ipynb)")
    names = [n for n in chapters(folder) if n.startswith(only) and (folder / f"{n}.py").exists()]
    if not names:
        raise ValueError(f"no chapter begins with {only!r}; there are: {', '.join(chapters(folder)) or 'none'}")
    kept.refresh(folder.parent)
    for name in names:
        start = time.perf_counter()
        written = update(folder, name, force, keep)
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
    found = _pairing(source, notebook) or _stale(folder.parent, name, source, notebook)
    counts = [c.execution_count for c in notebook.cells if c.cell_type == "code"]
    if None not in counts and counts != list(range(1, len(counts) + 1)):
        found.append("its cells were not executed once each, from the first to the last")
    for number, cell in enumerate(notebook.cells, 1):
        if cell.cell_type == "code":
            found += [f"cell {number}: {problem}" for problem in _cell_problems(cell)]
    if name in runnable(folder):
        try:
            parameters(notebook)
        except ValueError as error:
            found.append(str(error))
    asserts = sum(bool(re.search(r"^\s*assert\b", source, re.M)) for source in _code(notebook))
    if asserts < MIN_ASSERTS:
        found.append(f"{asserts} cells contain an assert; a chapter has {MIN_ASSERTS} or more")
    if (size := paths["ipynb"].stat().st_size) > MAX_BYTES:
        found.append(f"{size / 1000:.0f} kB; a notebook has {MAX_BYTES // 1000} kB at most")
    return [f"{name}.ipynb: {problem}" for problem in found]


def _pairing(source: Any, notebook: Any) -> list[str]:
    ours, theirs = list(map(content, source.cells)), list(map(content, notebook.cells))
    remedy = "edited in the .ipynb; `make pairs` brings it" if edited(notebook, kept=ours) else "`make pairs` writes it"
    for number, (a, b) in enumerate(zip(ours, theirs, strict=False), 1):
        if a != b:
            what = [name for name, x, y in zip(PARTS, a, b, strict=True) if x != y]
            return [f"cell {number}: {' and '.join(what)} not as in the .py ({remedy})"]
    if len(ours) != len(theirs):
        return [f"{len(theirs)} cells, the .py has {len(ours)} ({remedy})"]
    return []


def _stale(root: Path, name: str, source: Any, notebook: Any) -> list[str]:
    """A line if the outputs were made from other code or files of the project than are there now."""
    remedy = f"`make pairs ONLY={name}` executes it again"
    if MADE_FROM not in notebook.metadata:
        return [f"stale: it does not record what its outputs were made from; {remedy}"]
    changed = made_from.difference(notebook.metadata[MADE_FROM], made_from.record(root, _code(source)))
    return [f"stale: changed since it was executed: {changed}; {remedy}"] if changed else []


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
            found.append(f"contains an error ({output.ename})")
        elif output.get("name") == "stderr":
            found.append("contains output on stderr")
        if pictures := [kind for kind in data if kind.startswith("image/") and kind != "image/svg+xml"]:
            found.append(f"contains {pictures[0]}; figures are SVG (`figures.Figure`)")
        text = "".join([output.get("text", ""), *(str(v) for k, v in data.items() if k.startswith("text/"))])
        if path := MACHINE_PATH.search(text):
            found.append(f"its output names a path of a machine ({text[path.start() :].split()[0]})")
    return found
