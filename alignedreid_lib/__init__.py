"""Person re-identification by aligned local features, one module or package per chapter of the book."""

import importlib
import warnings
from types import ModuleType

# Modules that had a different path.
MOVED = {
    "centres": "training.centres",
    "explain": "search.explain",
    "images": "batches.images",
    "registration": "datasets.registration",
    "sampling": "batches.sampling",
    "features": "evaluation.features",
    "ranking": "evaluation.ranking",
    "reranking": "evaluation.reranking",
    "streaming": "evaluation.streaming",
    "scores": "evaluation.scores",
    "testing": "evaluation.full_run",
    "verification": "evaluation.verification",
}


def __getattr__(name: str) -> ModuleType:
    """A module by its old name, with a warning that gives the new one."""
    if name not in MOVED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    room, module = MOVED[name].split(".")
    warnings.warn(f"{name} has moved: from {__name__}.{room} import {module}", DeprecationWarning, stacklevel=2)
    return importlib.import_module(f"{__name__}.{MOVED[name]}")
