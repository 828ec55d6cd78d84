"""The training of one model, or of several that teach each other. Explained in notebooks/06_training and 07."""

from alignedreid_lib.training.config import TrainConfig, learning_rate
from alignedreid_lib.training.epoch import make_batch, of_model
from alignedreid_lib.training.learner import Learner, load_network, make_learner
from alignedreid_lib.training.loop import TrainResult, train, train_labels
from alignedreid_lib.training.step import mutual_step, train_step

__all__ = [
    "Learner",
    "TrainConfig",
    "TrainResult",
    "learning_rate",
    "load_network",
    "make_batch",
    "make_learner",
    "mutual_step",
    "of_model",
    "train",
    "train_labels",
    "train_step",
]
