"""The settings of a notebook: what its parameters cell, and papermill after it, give values to.

Derived in notebooks/06_training.
"""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from alignedreid_lib.errors import InputError

Config = TypeVar("Config")

# Papermill's cell begins with "# Parameters" alone, a chapter's with "# Parameters: what they are of"; some editors
# keep the line that marks a cell of a script.
BEGINNING = re.compile(r"\s*(#[ \t]*%%.*\s)?\s*#[ \t]*parameters\b(?P<title>.*)", re.IGNORECASE)
INNER = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.comprehension)


def read_parameters(kind: Callable[..., Config], namespace: Mapping[str, Any], extra: Iterable[str] = ()) -> Config:
    """Build a config from a notebook's parameters cell and what papermill injected after it.

    Cells that begin with "# Parameters" are parameter cells; one that has this line alone is papermill's. Only the last
    run of each counts, papermill's if it ran after the notebook's own: so a cell may be mended and run again, and a
    line taken out falls back to the default.

    Args:
        kind: a dataclass that checks its own fields.
        namespace: the notebook's globals().
        extra: parameters that are the notebook's own, not the config's.

    Raises:
        InputError: a parameter that neither the config nor `extra` knows, one of `extra` that no line sets, a cell that
            did not run to its end; or what `kind` refuses.
    """
    known = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    own = set(extra)
    cells = parameter_cells(namespace.get("In", ()))
    given = list(dict.fromkeys(name for source in cells for name in assigned_names(source)))
    if not cells:  # run as a script: there is no history to read
        given = [name for name in sorted(known | own) if name in namespace]
    for name in given:
        if name not in known | own:
            raise InputError(f"unknown parameter {name!r}; known are {', '.join(sorted(known | own))}")
    for name in sorted(own - set(given)):
        raise InputError(f"parameter {name!r} is set by no line of the parameters cell; add `{name} = ...` and run it")
    for name in given:
        if name not in namespace:
            raise InputError(f"parameter {name!r} has no value; mend the parameters cell and run it again")
    return kind(**{name: namespace[name] for name in given if name in known})


def parameter_cells(history: Iterable[str]) -> list[str]:
    """The parameter cells that count, of all cells that ran, in order: the notebook's own, and papermill's after it."""
    own = injected = ""
    for source in history:
        begins = BEGINNING.match(source)
        if begins and begins["title"].strip():
            own, injected = source, ""
        elif begins:
            injected = source
    return [cell for cell in (own, injected) if cell]


def assigned_names(source: str) -> list[str]:
    """The names that a cell gives values to, each once, in order; not those inside of functions and comprehensions.

    Raises:
        InputError: the cell is not Python.
    """

    def names(node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, INNER):
                yield from names(child)

    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        raise InputError(
            f"the parameters cell is not Python ({error.args[0]}{line}); correct it, run it again"
        ) from None
    return list(dict.fromkeys(names(tree)))
