"""Presets: the settings of a full run, from its file and from the command line, checked before anything runs."""

import ast
import dataclasses
import hashlib
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import yaml

import pairs

# Parameters that tell where to compute and save, where the data is, and what to test: not what is trained.
WHERE = ("run_dir", "data_root", "device", "model_devices", "compiled", "workers", "memory_limit", "checkpoint_every")
TEST = ("test_sets", "test_distances", "test_rerank", "test_multi_query")
# The project's own folders, and those that its commands empty.
OWN = ("notebooks", "alignedreid_lib", "tests", ".git", ".venv", "site", "build", "runs/book", "data/synthetic")


FULL_RUNS = ("06_training", "07_mutual_learning")  # their settings are TrainConfig's and Plan's


class PlainLoader(yaml.SafeLoader):
    """YAML as people mean it: 1e-3 is a number, 010 is ten, dates and 12:30 are text, None is null.

    A name that is given twice is an error.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012  # as the class it is taken from has it
        first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] in ("bool", "null", "merge")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """As the class it is taken from does, except for names given twice."""
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := [name for name in names if names.count(name) > 1]:
            raise yaml.YAMLError(f"{twice[0]} is given twice; keep one of the two")
        return super().construct_mapping(node, deep)


NUMBER = r"[-+]?(\d+(\.\d*)?|\.\d+)(e[-+]?\d+)?|[-+]?\.inf|\.nan"
PlainLoader.add_implicit_resolver("!integer", re.compile(r"[-+]?\d+$"), list("-+0123456789"))
PlainLoader.add_implicit_resolver("!number", re.compile(f"(?:{NUMBER})$", re.IGNORECASE), list("-+.0123456789"))
PlainLoader.add_implicit_resolver("!none", re.compile("None$"), ["N"])
PlainLoader.add_constructor("!integer", lambda _, node: int(node.value))
PlainLoader.add_constructor(
    "!number", lambda _, node: float(node.value.lower().replace(".inf", "inf").replace(".nan", "nan"))
)
PlainLoader.add_constructor("!none", lambda _, node: None)


def value(text: str) -> Any:
    """A value given on the command line: a Python literal, a truth, a null or a list of YAML, else the text itself."""
    with suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        found = ast.literal_eval(text)
        if found is None or isinstance(found, bool | int | float | str | list | tuple | dict):
            return found
    try:
        found = yaml.load(text, PlainLoader)
    except (yaml.YAMLError, ValueError, RecursionError):
        return text
    # YAML's own numbers are octal (010) and times (12:30), which surprises the person who types them.
    return found if isinstance(found, bool | list | dict) or text.strip().lower() in ("null", "~") else text


class Preset(NamedTuple):
    """A file of `notebooks/presets`, and the parameters of the notebook it names."""

    notebook: str
    given: dict[str, Any]
    defaults: dict[str, Any]


def library_settings() -> dict[str, Any]:
    """Every setting of a full run that has a default, with it: a notebook's cell need not repeat them."""
    from alignedreid_lib.evaluation.full_run import Plan  # imported late, because torch takes seconds
    from alignedreid_lib.training import TrainConfig

    fields = (field for kind in (TrainConfig, Plan) for field in dataclasses.fields(kind))
    return {field.name: field.default for field in fields if field.default is not dataclasses.MISSING}


def read_preset(root: Path, preset: str) -> Preset:
    """Raises ValueError where there is no such preset, it is damaged, or names no notebook."""
    known = {path.stem: path for path in sorted((root / "notebooks" / "presets").glob("*.yaml"))}
    if preset not in known:
        raise ValueError(f"no preset {preset!r}; there are: {', '.join(known)} (make train PRESET=name)")
    path = known[preset]
    shown = path.relative_to(root)
    try:
        content = yaml.load(path.read_text("utf-8"), PlainLoader)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ValueError(f"{shown}: cannot be read ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict) or set(content) != {"notebook", "parameters"}:
        raise ValueError(f"{shown}: a preset has the keys notebook and parameters")
    name, given = content["notebook"], content["parameters"]
    if not isinstance(given, dict):
        raise ValueError(f"{shown}: parameters is {given!r}; it has to be lines of `name: value`")
    if name not in pairs.chapters(root / "notebooks"):
        raise ValueError(f"{shown}: no notebook notebooks/{name}.ipynb")
    notebook = pairs.read(root / "notebooks" / f"{name}.ipynb")
    try:
        return Preset(name, given, (library_settings() if name in FULL_RUNS else {}) | pairs.parameters(notebook))
    except ValueError as error:
        raise ValueError(f"notebooks/{name}.ipynb: {error}") from error


def read_overrides(root: Path, preset: str, words: Sequence[Sequence[str]]) -> dict[str, Any]:
    """What `-p name text` gave; a parameter that is text in the notebook is text whatever it looks like.

    If it is given twice, the last one counts, and a line reports it.
    """
    defaults = read_preset(root, preset).defaults
    found: dict[str, Any] = {}
    for name, text in words:
        try:
            (name + text).encode()
        except UnicodeEncodeError:
            raise ValueError(f"{name!r} is {text!r}, which is not text in UTF-8; rename it") from None
        if name in found:
            print(f"{name} is given several times; the last one counts: {text}", flush=True)
        found[name] = value(text)
        if isinstance(defaults.get(name), str) and not isinstance(found[name], str):
            found[name] = text
    return found


def as_list(given: Any, default: Any) -> Any:
    """A parameter's value; where the notebook has a list, a list, of one where one item is given."""
    if not isinstance(default, list | tuple):
        return given
    return (
        list(given) if isinstance(given, list | tuple) else [given] if isinstance(given, str | int | float) else given
    )


def plan(root: Path, preset: str, overrides: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The notebook that a preset names and the parameters to run it with, checked before anything runs.

    The run's folder is `runs/<preset>`; what the overrides change is added to its name (`_seed2`), so that
    two settings never meet in one folder; where it is computed (a device, for example) is not a setting, nor is the
    test: a finished run is tested again, without a new training. An override of `run_dir` is taken as it is.

    Raises:
        ValueError: no such preset or notebook, or a parameter that the notebook does not have.
    """
    name, given, defaults = read_preset(root, preset)
    if unknown := [key for key in (*given, *overrides) if key not in defaults]:
        raise ValueError(f"unknown parameter {unknown[0]!r}; {name} has: {', '.join(sorted(defaults))}")
    given, overrides = ({k: as_list(v, defaults[k]) for k, v in source.items()} for source in (given, overrides))
    settings = {k: as_list(v, v) for k, v in defaults.items()} | given
    changed = {k: v for k, v in sorted(overrides.items()) if k not in (*WHERE, *TEST) and settings[k] != v}
    suffix = "".join(f"_{key}{v}" for key, v in changed.items())
    folder = re.sub(r"[^\w.-]+", "-", preset + suffix)
    if len(folder.encode()) > 120:  # a list of files, say; a folder's name has its limits
        start = folder.encode()[:100].decode(errors="ignore")
        folder = f"{start}-{hashlib.sha1(folder.encode()).hexdigest()[:8]}"
    run_dir = f"runs/{folder}"
    return name, {"run_dir": run_dir} | given | overrides


def run_folder(root: Path, run_dir: Any) -> tuple[Path, list[Path]]:
    """A run's folder, made if absent, and the folders that were made for it, the deepest first.

    Raises:
        ValueError: it is not text, cannot be made or written to, or is a folder of the project's own.
    """
    from alignedreid_lib.runs import lock, resolve  # takes seconds, which the other commands need not wait

    if not isinstance(run_dir, str) or not run_dir.strip():
        raise ValueError(f"run_dir is {run_dir!r}; it has to be the name of a folder")
    folder = resolve(run_dir, root)
    new: list[Path] = []
    try:
        where, project = folder.resolve(), root.resolve()
        full = where in (project, project / "runs", project / "data", project / "data" / "raw")
        if full or where in project.parents or any(where.is_relative_to(project / name) for name in OWN):
            raise ValueError(f"run_dir is {run_dir!r}, which contains other things; name a new folder (runs/name)")
        new = [parent for parent in (folder, *folder.parents) if not parent.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / lock.NAME, "a"):
            return folder, new
    except (OSError, RuntimeError) as error:  # RuntimeError: a link that leads to itself
        for parent in new:
            with suppress(OSError):
                parent.rmdir()
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"{run_dir}: no run can be kept there ({reason}); choose a different run_dir") from error
