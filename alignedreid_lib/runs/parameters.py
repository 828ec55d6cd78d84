"""The settings of a notebook, from its own parameters cell and papermill's. Derived in notebooks/06_training."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import functools
import re
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated, Any, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from alignedreid_lib.errors import InputError

Config = TypeVar("Config")

# Papermill's cell begins with "# Parameters" alone, a chapter's with "# Parameters: what they are of"; some editors
# keep the line that marks a cell of a script.
BEGINNING = re.compile(r"\s*(#[ \t]*%%.*\s)?\s*#[ \t]*parameters\b(?P<title>.*)", re.IGNORECASE)
MAGIC = re.compile(r"^[%!].*\n?", re.MULTILINE)  # IPython's own lines, as %%time
COMPUTED = object()  # the value of a name that its cell does not give as a literal
INNER = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.comprehension)


def read_parameters(kind: Callable[..., Config], namespace: Mapping[str, Any]) -> Config:
    """Build a config from a notebook's parameters cell and what papermill injected after it.

    Cells that begin with "# Parameters" are parameter cells; one that has this line alone is papermill's. Only the last
    run of each counts, papermill's if it is later, so that a cell may be corrected and run again; a removed line gives
    the default. A literal counts as its cell has it, even if a later cell changed the name.

    Args:
        kind: a dataclass that checks its own fields.
        namespace: the notebook's globals().

    Raises:
        InputError: an unknown parameter, a cell that is not Python or did not run to its end, or what `kind` refuses.
    """
    return read_several(namespace, kind)[0]


def read_several(namespace: Mapping[str, Any], *kinds: Callable[..., Any]) -> tuple[Any, ...]:
    """Several configs from one parameters cell, each from the parameters that are its fields; see `read_parameters`."""
    fields = [{field.name for field in dataclasses.fields(kind)} for kind in kinds]  # type: ignore[arg-type]
    known = sorted(set().union(*fields))
    cells = parameter_cells(namespace.get("In", ()))
    given = {name: value for source in cells for name, value in assignments(source).items()}
    if not cells:  # run as a script: there is no history to read
        given = {name: COMPUTED for name in known if name in namespace}
    for name in given:
        if name not in known:
            raise InputError(f"unknown parameter {name!r}; known are {', '.join(known)}")
    for name, value in given.items():
        if value is COMPUTED:
            if name not in namespace:
                raise InputError(f"parameter {name!r} has no value; correct the parameters cell and run it again")
            given[name] = namespace[name]
    parts = [{name: value for name, value in given.items() if name in own} for own in fields]
    return tuple(kind(**part) for kind, part in zip(kinds, parts, strict=True))


def read_settings(namespace: Mapping[str, Any], **kinds: Any) -> Any:
    """A chapter's own settings: its parameters, each checked against a type, as attributes of one object.

    Args:
        namespace: the notebook's globals().
        kinds: the type of each parameter: bool, str, `between(1, 20)`, `SEED`.

    Raises:
        InputError: see `read_parameters`; a parameter that is absent, or not of its type.
    """
    fields = [(name, kind, dataclasses.field(default=None)) for name, kind in kinds.items()]
    settings = dataclasses.make_dataclass("Settings", fields, frozen=True, namespace={"__post_init__": check_types})
    return read_parameters(settings, namespace)


def between(low: float, high: float) -> Any:
    """The type of a parameter from `low` to `high`: whole numbers if both are."""
    return Annotated[int if isinstance(low, int) and isinstance(high, int) else float, Field(ge=low, le=high)]


SEED = between(0, 2**32 - 1)  # numpy takes 32 bits


def parameter_cells(history: Iterable[str]) -> list[str]:
    """The parameter cells that count, of all cells that ran, in order: the notebook's own, and papermill's after it."""
    own = injected = ""
    for source in history:
        source = MAGIC.sub("", source)
        begins = BEGINNING.match(source)
        if begins and not begins["title"].strip():
            injected = source
        elif begins or _sets_most_of(own, source):
            own, injected = source, ""
    return [cell for cell in (own, injected) if cell]


def _sets_most_of(own: str, source: str) -> bool:
    """True if a cell is the notebook's own after an edit of its first lines: it sets nearly all of its names."""
    if not own or source.count("=") < 2:
        return False
    with contextlib.suppress(InputError):
        names = assignments(own).keys()
        return len(names & assignments(source).keys()) >= 0.8 * len(names)
    return False


def assignments(source: str) -> dict[str, Any]:
    """The names that a cell gives values to, not those inside of functions and comprehensions, in order.

    Returns:
        the value of each whose last line is `name = literal`, COMPUTED for the others.

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
        lines = ast.parse(source).body
    except (SyntaxError, ValueError) as error:
        place = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        raise InputError(
            f"the parameters cell is not Python ({error.args[0]}{place}); correct it and run it again"
        ) from None
    found: dict[str, Any] = {}
    for line in lines:
        value: Any = COMPUTED
        if isinstance(line, ast.Assign | ast.AnnAssign) and line.value:
            targets = line.targets if isinstance(line, ast.Assign) else [line.target]
            if all(isinstance(target, ast.Name) for target in targets):
                with contextlib.suppress(ValueError, TypeError):
                    value = ast.literal_eval(line.value)
        if not isinstance(line, INNER):
            found |= dict.fromkeys(names(line), value)
    return found


def check_types(settings: Any) -> None:
    """Bring every field of a frozen dataclass to its annotated type, see `typed`, or refuse it by name."""
    hints = typing.get_type_hints(type(settings), include_extras=True)
    for field in dataclasses.fields(settings):
        value = typed(field.name, getattr(settings, field.name), hints[field.name])
        object.__setattr__(settings, field.name, value)


def check_rules(settings: Any, rules: Mapping[str, tuple[bool, str]]) -> None:
    """Refuse the first setting whose rule is broken.

    Args:
        rules: per setting, whether it can work, and a text of what it has to be.

    Raises:
        InputError: the message names the setting.
    """
    for name, (holds, wanted) in rules.items():
        if not holds:
            raise InputError(f"{name} is {_shown(getattr(settings, name))}; it has to be {wanted}")


def typed(name: str, value: Any, hint: Any) -> Any:
    """`value` as the annotated type, which may have pydantic's bounds: `Annotated[int, Field(ge=1)]`.

    An int becomes a float, a list a tuple, and one item a tuple of one; nothing else is converted.

    Raises:
        InputError: it is of a wrong type or out of bounds, or a float that is not finite; the message calls it `name`.
    """
    several = typing.get_origin(hint) is tuple
    given = value
    if several:
        given = tuple(value) if isinstance(value, list | tuple) else (value,)
    try:
        return _adapter(hint).validate_python(given)
    except ValidationError as error:
        wanted = error.errors(include_url=False, include_input=False)[0]["msg"].removeprefix("Input should be ")
    wanted = ("a list, each item " if several else "") + wanted
    wanted += ", or None" if type(None) in typing.get_args(hint) else ""
    raise InputError(f"{name} is {_shown(value)}; it has to be {wanted}")


@functools.cache
def _adapter(hint: Any) -> TypeAdapter:
    return TypeAdapter(hint, config=ConfigDict(strict=True, allow_inf_nan=False))


def _shown(value: Any) -> str:
    """`repr`, also where Python refuses to print an integer."""
    try:
        return repr(value)
    except ValueError:
        return "an integer of thousands of digits"
