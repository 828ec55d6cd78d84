"""A run's folder and its files: settings, atomic writes, tensors read without running code."""

from alignedreid_lib.runs.files import make_folder, read_json, resolve, write_atomic, write_json
from alignedreid_lib.runs.folder import (
    CHECKPOINT_FORMAT,
    load_checkpoint,
    open_run,
    provenance,
    read_metrics,
    save_checkpoint,
    save_weights,
    write_metrics,
    write_results,
)
from alignedreid_lib.runs.parameters import (
    SEED,
    between,
    check_rules,
    check_types,
    read_parameters,
    read_settings,
    read_several,
    typed,
)

__all__ = [
    "CHECKPOINT_FORMAT",
    "SEED",
    "between",
    "check_rules",
    "check_types",
    "load_checkpoint",
    "make_folder",
    "open_run",
    "provenance",
    "read_json",
    "read_metrics",
    "read_parameters",
    "read_settings",
    "read_several",
    "resolve",
    "save_checkpoint",
    "save_weights",
    "typed",
    "write_atomic",
    "write_json",
    "write_metrics",
    "write_results",
]
