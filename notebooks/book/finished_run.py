"""The network of a finished run of one model, and its settings, for tools that measure trained networks."""

from alignedreid_lib import runs
from alignedreid_lib.errors import InputError
from alignedreid_lib.model import AlignedReID
from alignedreid_lib.training import TrainConfig, load_network


def open_finished(folder: str) -> tuple[AlignedReID, TrainConfig]:
    """Read `config.json` and `weights.pth` of a run.

    Raises:
        InputError: not a finished run of one model.
    """
    run = runs.resolve(folder)
    if not (run / "config.json").is_file() or not (run / "weights.pth").is_file():
        raise InputError(f"{run}: not a finished run of one model; give a folder with config.json and weights.pth")
    fields, given = TrainConfig.__dataclass_fields__, runs.read_json(run / "config.json")
    config = TrainConfig(**{name: value for name, value in given.items() if name in fields})
    return load_network(config, run / "weights.pth"), config
