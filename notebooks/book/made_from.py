"""What a chapter's outputs were made from: fingerprints of the code and the files that the chapter can reach.

A chapter reaches the definitions of the library that its code names, the definitions that those name, and so on; a file
counts if a string that is reached names it. Comments, docstrings, the layout of the code and definitions that are not
reached do not count, and neither do versions and paths of a machine. So a change executes only the chapters that it can
change. The names are followed in the source, nothing is imported: this is exact as long as the library finds nothing by
a name made at run time. Its one exception, the exercise of a chapter, is `BY_NAME`.
"""

import ast
import hashlib
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

LIBRARY = "alignedreid_lib"
BY_NAME = f"{LIBRARY}.exercises.c"  # `check("04_alignment", ...)` imports this and the text
FOR_EVERY_CHAPTER = "notebooks/matplotlibrc"
DATA_KINDS = (".js", ".css", ".txt", ".json", ".csv", ".npz", ".gz")  # files that a package of the library brings
SHOWN = 3  # files that a line names

NOT_READ = {(f"{LIBRARY}.runs.folder", "SOURCES")}  # it names folders, of which git is asked whether they changed

Node = tuple[str, str]  # a module, and a name that its top level binds; "" is the module's code without a name


@dataclass
class Module:
    """A module's top level.

    Attributes:
        bound: what binds a name: definitions, assignments, imports.
        imported: what a name that an import binds may mean, as (module, name); "" as a name is the module.
        nameless: the statements that bind nothing and are run at import.
    """

    bound: dict[str, list[ast.AST]] = field(default_factory=dict)
    imported: dict[str, set[Node]] = field(default_factory=dict)
    nameless: list[ast.AST] = field(default_factory=list)


def _imports(node: ast.AST) -> Iterator[tuple[str, Node]]:
    """The names that an import statement binds, with what they mean."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield alias.asname or alias.name.partition(".")[0], (alias.name if alias.asname else LIBRARY, "")
    elif isinstance(node, ast.ImportFrom) and node.module:
        for alias in node.names:
            yield alias.asname or alias.name, (node.module, alias.name)


def _alone(statement: ast.stmt, name: str) -> ast.AST:
    """What binds a name: of an import that one name, since the others may come and go."""
    if not isinstance(statement, ast.Import | ast.ImportFrom):
        return statement
    (alias,) = [alias for alias in statement.names if name in (alias.asname, alias.name.partition(".")[0])][:1]
    return ast.ImportFrom(getattr(statement, "module", None), [alias], 0)


def _read(statements: list[ast.stmt], module: Module) -> Module:
    """Adds statements of a top level to what is known of the module."""
    for statement in statements:
        names: list[str] = []
        if isinstance(statement, ast.Import | ast.ImportFrom):
            for name, meaning in _imports(statement):
                names.append(name)
                if meaning[0].partition(".")[0] == LIBRARY:
                    module.imported.setdefault(name, set()).add(meaning)
        elif isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names = [statement.name]
        elif isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign):
            stored = (node for node in ast.walk(statement) if isinstance(node, ast.Name))
            names = [node.id for node in stored if isinstance(node.ctx, ast.Store)]
        elif isinstance(statement, ast.If) and ast.unparse(statement.test).endswith("TYPE_CHECKING"):
            _read(statement.body, module)
            continue
        elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            continue
        for name in names:
            module.bound.setdefault(name, []).append(_alone(statement, name))
        if not names:
            module.nameless.append(statement)
            _read([node for node in ast.walk(statement) if isinstance(node, ast.Import | ast.ImportFrom)], module)
    return module


def plain(node: Any) -> Any:
    """A piece of code as nested lists, the same in every version of Python: no comments, docstrings or empty fields."""
    if isinstance(node, list):
        return [plain(item) for item in node]
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = dict(ast.iter_fields(node))
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
        fields["body"] = node.body[1:]
    if isinstance(node, ast.JoinedStr):  # versions differ in the empty texts between values
        fields["values"] = [v for v in node.values if not (isinstance(v, ast.Constant) and v.value == "")]
    left_out = ("ctx", "kind", "type_comment")
    kept = [(key, plain(value)) for key, value in fields.items() if key not in left_out and value not in (None, [])]
    return [type(node).__name__, *sorted(kept)]


def _facts(statements: list[ast.AST], name: str, module: Module) -> tuple[set[Node], set[str]]:
    """What statements name: definitions as (module, dotted name), and strings, an f-string with `*` for each value.

    Args:
        name: the module that they are in; "" for a chapter, whose own names need not be followed.
    """
    found, texts = set[Node](), set[str]()
    for statement in statements:
        if isinstance(statement, ast.ImportFrom):
            continue
        nodes = list(ast.walk(statement))
        local: dict[str, set[Node]] = {}
        for bound, meaning in (pair for node in nodes for pair in _imports(node)):
            if meaning[0].partition(".")[0] == LIBRARY:
                local.setdefault(bound, set()).add(meaning)
        inner = set[ast.AST]()  # what a longer chain of names, or an f-string, has dealt with
        for node in nodes:  # outer nodes first
            if isinstance(node, ast.JoinedStr):
                texts.add("".join(str(part.value) if isinstance(part, ast.Constant) else "*" for part in node.values))
                inner |= set(node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in inner:
                texts.add(node.value)
            elif isinstance(node, ast.Attribute | ast.Name) and node not in inner:
                chain, root = list[str](), node
                while isinstance(root, ast.Attribute):
                    chain.insert(0, root.attr)
                    root = root.value  # type: ignore[assignment]
                    inner.add(root)
                if isinstance(root, ast.Name):
                    for start, first in local.get(root.id, set()) | module.imported.get(root.id, set()):
                        found.add((start, ".".join([first, *chain] if first else chain)))
                    if name and root.id in module.bound:
                        found.add((name, ".".join([root.id, *chain])))
    return found, texts


class Library:
    """The library's modules, read without being imported."""

    def __init__(self, root: Path) -> None:
        self.modules: dict[str, Module] = {}
        for path in (path for path in _files(root) if path.suffix == ".py"):
            name = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
            self.modules[name] = _read(ast.parse(path.read_text("utf-8")).body, Module())
        self._known: dict[Node, tuple[set[Node], set[str], str]] = {}

    def resolve(self, module: str, names: str) -> list[Node]:
        """The definition that `module.name.name` means, all of a module if it is one, nothing for other libraries."""
        steps = names.split(".") if names else []
        while steps and f"{module}.{steps[0]}" in self.modules and steps[0] not in self.modules[module].bound:
            module = f"{module}.{steps.pop(0)}"
        if module not in self.modules:
            return []
        if steps and steps[0] in self.modules[module].bound:
            handed_on = self.modules[module].imported.get(steps[0], set())
            further = [self.resolve(start, ".".join([*filter(None, [name]), *steps[1:]])) for start, name in handed_on]
            return [(module, steps[0]), *(node for nodes in further for node in nodes)]
        return [(module, name) for name in self.modules[module].bound]  # also for what `__getattr__` gives

    def facts(self, node: Node) -> tuple[set[Node], set[str], str]:
        """What a definition names, the strings in it, and its fingerprint; worked out once."""
        if node not in self._known:
            module, name = node
            home = self.modules[module]
            statements = home.bound[name] if name else home.nameless
            found, texts = _facts(statements, module, home)
            self._known[node] = found, set() if node in NOT_READ else texts, _digest(repr(plain(statements)).encode())
        return self._known[node]

    def reach(self, code: Module) -> tuple[set[Node], set[str]]:
        """All definitions and strings that code reaches, its own strings among them."""
        found, texts = _facts([*(s for each in code.bound.values() for s in each), *code.nameless], "", code)
        todo = [*found, *((f"{BY_NAME}{text}", "") for text in texts if f"{BY_NAME}{text}" in self.modules)]
        nodes = set[Node]()
        while todo:
            for node in self.resolve(*todo.pop()):
                for each in {node, (node[0], "")} - nodes:
                    nodes.add(each)
                    more, strings, _ = self.facts(each)
                    todo += more
                    texts |= strings
        return nodes, texts


def _files(root: Path) -> list[Path]:
    return sorted(
        path for path in (root / LIBRARY).rglob("*") if path.is_file() and path.suffix in (".py", *DATA_KINDS)
    )


@lru_cache(maxsize=2)
def _library(root: Path, state: tuple[tuple[str, int, int], ...]) -> Library:
    return Library(root)


def library(root: Path) -> Library:
    """The library's modules, read again when a file has changed.

    Raises:
        ValueError: a module is not Python; one line.
    """
    stats = [(str(path), path.stat()) for path in _files(root)]
    try:
        return _library(root, tuple((path, stat.st_mtime_ns, stat.st_size) for path, stat in stats))
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"{LIBRARY} cannot be read ({' '.join(str(error).split())})") from error


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


def named_files(root: Path, texts: set[str]) -> set[Path]:
    """The files that strings name: of notebooks/ by path or by a folder's name, of the library by a file's name."""
    data = [path for path in _files(root) if path.suffix != ".py"]
    folders = {path.name for path in (root / "notebooks").glob("*/")} - {"book"}
    found = {root / FOR_EVERY_CHAPTER}
    for text in texts:
        if text in folders:
            text = f"notebooks/{text}"
        if re.fullmatch(r"notebooks/[\w./*-]+", text):
            for path in root.glob(text.rstrip("/")):
                found |= set(path.glob("*")) if path.is_dir() else {path}
        found |= {path for path in data if text in (path.name, path.stem)}
    return {path for path in found if path.is_file() and path.suffix not in (".py", ".ipynb")}


def read_code(sources: list[str]) -> Module:
    """Pieces of code as one module; what is not Python cannot be executed either, which is reported elsewhere."""
    code = Module()
    for source in sources:
        with suppress(SyntaxError, ValueError):
            _read(ast.parse(re.sub(r"(?m)^(\s*)[%!?].*$", r"\1pass", source)).body, code)
    return code


def record(root: Path, sources: list[str]) -> dict[str, str]:
    """A fingerprint for each file that code reaches, by the file's path in the project.

    Args:
        sources: pieces of code, the cells of a chapter. Lines of IPython's own commands are left out.
    """
    known = library(root)
    nodes, texts = known.reach(read_code(sources))
    found = {path.relative_to(root).as_posix(): _digest(path.read_bytes()) for path in named_files(root, texts)}
    for module in {module for module, _ in nodes}:
        names = sorted(name for other, name in nodes if other == module)
        place = Path(*module.split("."))
        file = place / "__init__.py" if (root / place).is_dir() else place.with_suffix(".py")
        found[file.as_posix()] = _digest(repr([(name, known.facts((module, name))[2]) for name in names]).encode())
    return dict(sorted(found.items()))


def difference(recorded: dict[str, str], now: dict[str, str]) -> str:
    """The files whose fingerprints differ, in words; "" for none."""
    changed = sorted(key for key in recorded.keys() | now.keys() if recorded.get(key) != now.get(key))
    if len(changed) > SHOWN:
        changed = [*changed[:SHOWN], f"{len(changed) - SHOWN} more"]
    return " and ".join([", ".join(changed[:-1]), changed[-1]] if len(changed) > 1 else changed)
