"""Settings are refused when they are made; the learning rate is the original's."""

import dataclasses
import datetime
import pickle
from pathlib import Path
from typing import Annotated

import numpy as np
import pytest
from pydantic import Field

from alignedreid_lib.errors import InputError
from alignedreid_lib.evaluation import full_run
from alignedreid_lib.runs import typed
from alignedreid_lib.training import TrainConfig, learning_rate

RECORDED = np.load(Path(__file__).parent / "data" / "losses_parity.npz")


@pytest.mark.parametrize(("base", "total", "start"), [("1e-3", 40, 21), ("2e-4", 300, 151)])
def test_exponential_equals_the_recorded_rates(base, total, start):
    config = TrainConfig(base_lr=float(base), total_epochs=total, decay_at_epoch=start)
    rates = [learning_rate(config, epoch) for epoch in range(1, total + 1)]
    np.testing.assert_allclose(rates, RECORDED[f"lr_exp_{base}_{total}_{start}"], rtol=1e-5)
    assert rates[-1] == pytest.approx(float(base) / 1000)


def test_staircase_equals_the_recorded_rates():
    config = TrainConfig(
        base_lr=2e-4, total_epochs=150, schedule="staircase", staircase_at_epochs=(51, 101), staircase_factor=0.1
    )
    rates = [learning_rate(config, epoch) for epoch in range(1, 151)]
    np.testing.assert_allclose(rates, RECORDED["lr_staircase_2e-4_150_51_101_0.1"], rtol=1e-5)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"total_epochs": 0, "decay_at_epoch": 0}, "total_epochs is 0; it has to be greater than or equal to 1"),
        ({"total_epochs": 2.5}, "total_epochs is 2.5; it has to be a valid integer"),
        ({"total_epochs": True}, "total_epochs is True; it has to be a valid integer"),
        ({"base_lr": "2e-4"}, "base_lr is '2e-4'; it has to be a valid number"),
        ({"base_lr": -1.0}, "base_lr is -1.0; it has to be greater than 0"),
        ({"base_lr": float("nan")}, "base_lr is nan"),
        ({"margin": -0.1}, "margin is -0.1"),
        ({"schedule": "linear"}, "schedule is 'linear'; it has to be 'exponential', 'staircase' or 'cosine'"),
        ({"schedule": "cosine", "decay_at_epoch": 0}, "decay_at_epoch is 0; it has to be between 1 and total_epochs"),
        ({"pad": 128}, "pad is 128; it has to be below 128, the smaller side"),
        ({"erase_prob": -0.1}, "erase_prob is -0.1"),
        ({"pooling": "max"}, "pooling is 'max'; it has to be 'mean' or 'gem'"),
        ({"neck": "batchnorm"}, "neck is 'batchnorm'; it has to be 'none', or id_weight above 0"),
        ({"label_smoothing": 0.1}, "label_smoothing is 0.1; it has to be 0, or id_weight above 0"),
        ({"label_smoothing": 1.0, "id_weight": 1.0}, "label_smoothing is 1.0; it has to be less than 1"),
        ({"centre_rate": 0.0}, "centre_rate is 0.0; it has to be greater than 0"),
        ({"decay_at_epoch": 301}, "decay_at_epoch is 301; it has to be between 1 and total_epochs"),
        ({"schedule": "staircase", "staircase_at_epochs": (50, 20)}, r"staircase_at_epochs is \(50, 20\)"),
        (
            {"schedule": "staircase", "staircase_at_epochs": (50.5,)},
            r"staircase_at_epochs is \(50.5,\); it has to be a list, each item a valid integer",
        ),
        ({"images_per_id": 1}, "images_per_id is 1; it has to be greater than or equal to 2"),
        ({"ids_per_batch": 1}, "ids_per_batch is 1; it has to be greater than or equal to 2"),
        ({"crop_prob": 1.5}, "crop_prob is 1.5"),
        ({"crop_ratio": 0.0}, "crop_ratio is 0.0"),
        ({"train_part": "test"}, "train_part is 'test'; it has to be 'trainval' or 'train'"),
        ({"precision": "float8"}, "precision is 'float8'"),
        ({"last_stride": 3}, "last_stride is 3"),
        ({"weights": 3}, "weights is 3; it has to be a valid string, or None"),
        ({"weights": ""}, "weights is ''; it has to be a file, \"imagenet\" or None"),
        ({"normalize": 1}, "normalize is 1; it has to be a valid boolean"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**32}, "seed is 4294967296; it has to be from 0 to 4294967295"),
        ({"seed": 2**32 - 1, "num_models": 2}, "it has to be from 0 to 4294966295"),  # the second has seed + 1000
        ({"height": 10**9}, "height is 1000000000; it has to be less than or equal to 2048"),
        ({"base_lr": float("inf")}, "base_lr is inf; it has to be a finite number"),
        ({"id_weight": float("-inf")}, "id_weight is -inf; it has to be a finite number"),
        ({"seed": 10**5000}, "seed is an integer of thousands of digits; it has to be from 0 to 4294967295"),
        ({"total_epochs": 10**5000}, "total_epochs is an integer of thousands of digits; it has to be less than"),
        ({"num_models": 10**5000}, "num_models is .*; it has to be less than or equal to 4294967"),
        ({"num_models": 5_000_000}, "num_models is 5000000; it has to be less than or equal to 4294967"),
        ({"device": ""}, "device is ''; it has to be text that is not empty"),
        ({"backbone": " "}, "backbone is ' '; it has to be text that is not empty"),
        ({"backbone": 18}, "backbone is 18; it has to be a valid string"),
        ({"dataset": ""}, "dataset is ''; it has to be text that is not empty"),
        ({"data_root": ""}, "data_root is ''; it has to be text that is not empty"),
        ({"backbones": ["resnet18", ""], "num_models": 2}, "backbones is .*a list, each item text that is not empty"),
        ({"model_devices": [""]}, "model_devices is .*; it has to be a list, each item text that is not empty"),
        ({"local_channels": 0}, "local_channels is 0; it has to be greater than or equal to 1"),
        ({"local_channels": 2**16 + 1}, "local_channels is 65537; it has to be less than or equal to 65536"),
        ({"decay_at_epoch": 10**5000}, "decay_at_epoch is .*; it has to be between 1 and total_epochs"),
        ({"memory_limit": -(10**5000)}, "memory_limit is .*; it has to be greater than or equal to 0"),
        ({"height": 10**5000}, "height is .* thousands of digits; it has to be less than or equal to 2048"),
        ({"last_stride": True}, "last_stride is True; it has to be a valid integer"),
        ({"global_weight": 0}, "id_weight is 0.0; it has to be above 0 if global_weight and local_weight are 0"),
        ({"seed": -1, "height": 0}, "height is 0"),  # the first of the two
        ({"margin": 10**400}, "margin is 1000.*; it has to be a valid number, or None"),
        ({"weights": ["a.pth"]}, r"weights is \['a.pth'\]; it has to be a valid string, or None"),
        (
            {"backbones": {"resnet18": 2}, "num_models": 2},
            "backbones is {.*; it has to be a list, each item a valid string",
        ),
        ({"backbones": None}, "backbones is None; it has to be a list, each item a valid string"),
        ({"data_root": datetime.date(2026, 10, 11)}, "data_root is datetime.date.*; it has to be a valid string"),
    ],
)
def test_nonsense_is_refused_by_name(setting, message):
    with pytest.raises(InputError, match=message) as caught:
        TrainConfig(**setting)
    assert "\n" not in str(caught.value) and "pydantic" not in str(caught.value)


def test_the_most_models_have_seeds():
    assert TrainConfig(num_models=4294967, seed=1000).num_models == 4294967


def test_whole_numbers_and_lists_from_yaml_are_taken():
    config = TrainConfig(margin=1, schedule="staircase", staircase_at_epochs=[5, 9], decay_at_epoch=999)
    assert config.margin == 1.0 and isinstance(config.margin, float)
    assert config.staircase_at_epochs == (5, 9)
    assert TrainConfig(margin=None).margin is None


def test_one_item_where_several_may_be_given_is_a_list_of_one():
    config = TrainConfig(schedule="staircase", staircase_at_epochs=5, backbones="resnet18", model_devices=["cpu"])
    assert (config.staircase_at_epochs, config.backbones, config.model_devices) == ((5,), ("resnet18",), ("cpu",))


def test_settings_are_a_plain_dataclass():
    config = TrainConfig("data", "tiny", margin=1, staircase_at_epochs=[5, 9])
    assert config == TrainConfig(dataset="tiny", margin=1.0, staircase_at_epochs=(5, 9)) != TrainConfig()
    assert hash(config) == hash(dataclasses.replace(config)) and pickle.loads(pickle.dumps(config)) == config
    assert TrainConfig(**dataclasses.asdict(config)) == config
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 2
    with pytest.raises(InputError, match="seed is -1"):
        dataclasses.replace(config, seed=-1)


@pytest.mark.parametrize(
    ("value", "hint", "typed_value"),
    [
        ([0, 0.5, 1], tuple[float, ...], (0.0, 0.5, 1.0)),
        (1, tuple[float, ...], (1.0,)),
        ((), tuple[str, ...], ()),
        (10**30, float, 1e30),
        (2, Annotated[float, Field(gt=1)] | None, 2.0),
        ("ab", tuple[str, ...], ("ab",)),  # never letter by letter
        (None, int | None, None),
        (3, float | None, 3.0),
    ],
)
def test_a_value_comes_as_its_annotated_type(value, hint, typed_value):
    assert typed("setting", value, hint) == typed_value


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"run_dir": " "}, "run_dir is ' '; it has to be the name of a folder"),
        ({"run_dir": 1}, "run_dir is 1; it has to be a valid string"),
        ({"run_dir": "x\0"}, r"'x.x00' cannot be a path: it has a zero byte"),
        ({"run_dir": "~no.such.user/x"}, "~no.such.user/x: nobody of that name has a home folder here"),
        (
            {"test_distances": ["global", "global"]},
            "test_distances is .*; it has to be one or several of .*, each once",
        ),
        ({"archive": None}, "archive is None; it has to be a valid string"),
        (
            {"test_distances": ["globl"]},
            r"test_distances is \('globl',\); it has to be one or several of global, rigid",
        ),
        ({"test_distances": "global,local"}, r"several are written \[global,local\]"),
        ({"test_distances": []}, r"test_distances is \(\)"),
        ({"test_distances": 5}, "test_distances is 5; it has to be a list, each item a valid string"),
        ({"test_distances": None}, "test_distances is None"),
        ({"test_rerank": "yes"}, "test_rerank is 'yes'; it has to be a valid boolean"),
        (
            {"test_sets": "market1501,dukemtmc"},
            r"different names of datasets; several are written \[market1501,dukemtmc\]",
        ),
        ({"test_sets": ["market1501", "market1501"]}, "test_sets is .*; it has to be different names"),
        ({"combined_of": [""]}, "combined_of is"),
        (
            {"only_test": "gone.pth"},
            r"only_test is \('gone.pth',\); it has to be files of weights, and 'gone.pth' is not",
        ),
        ({"only_test": ["tests"]}, "'tests' is not a file"),
        ({"only_test": ["x" * 5000]}, "is not a file"),
        ({"study_seeds": [1, "a"]}, r"study_seeds is \[1, 'a'\]; it has to be a list, each item a valid integer"),
        ({"study_seeds": [1, 1]}, "study_seeds is .*; it has to be different seeds"),
        ({"study_seeds": [-1]}, "study_seeds is"),
        ({"study_seeds": True}, "study_seeds is True"),
        ({"num_val_ids": -1}, "num_val_ids is -1; it has to be greater than or equal to 0, or None"),
        ({"num_val_ids": 1.5}, "num_val_ids is 1.5; it has to be a valid integer, or None"),
        ({"test_share": 2}, "test_share is 2; it has to be less than or equal to 1, or None"),
        ({"test_share": float("nan")}, "test_share is nan"),
        ({"pattern": 1}, "pattern is 1; it has to be a valid string"),
    ],
)
def test_what_a_full_run_is_given_is_checked_when_its_plan_is_made(setting, message):
    with pytest.raises(InputError, match=message) as caught:
        full_run.Plan(**{"run_dir": "runs/mine"} | setting)
    assert "\n" not in str(caught.value)


def test_a_plan_takes_one_name_as_a_list_of_one():
    plan = full_run.Plan("runs/mine", test_sets="market1501", test_distances="local", study_seeds=3, test_share=1)
    assert (plan.test_sets, plan.test_distances, plan.study_seeds) == (("market1501",), ("local",), (3,))
    assert plan.data["test_sets"] == ("market1501",) and plan.data["test_share"] == 1.0
