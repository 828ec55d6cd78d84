"""Person re-identification by aligned local features, one module or package per chapter of the book."""

import importlib
import warnings
from types import ModuleType

# Modules that were elsewhere before version 0.1, and their packages now.
MOVED = {
    **dict.fromkeys(("images", "sampling"), "batches"),
    **dict.fromkeys(("features", "ranking", "reranking", "streaming"), "evaluation"),
    **dict.fromkeys(("scores", "testing", "verification"), "evaluation"),
}


def __getattr__(name: str) -> ModuleType:
    """A module by its old name, with a warning that gives the new one."""
    if name not in MOVED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    place = f"{__name__}.{MOVED[name]}"
    warnings.warn(f"{name} is in {place}: from {place} import {name}", DeprecationWarning, stacklevel=2)
    return importlib.import_module(f"{place}.{name}")
