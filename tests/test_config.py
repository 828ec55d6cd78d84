"""Settings are refused when they are made; the learning rate is the original's."""

import datetime
from pathlib import Path

import numpy as np
import pytest

from alignedreid_lib.errors import InputError
from alignedreid_lib.evaluation import testing
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
        ({"total_epochs": 0, "decay_at_epoch": 0}, "total_epochs is 0; it has to be 1 or more"),
        ({"total_epochs": 2.5}, "total_epochs is 2.5, of type float; it has to be of type int"),
        ({"total_epochs": True}, "total_epochs is True, of type bool"),
        ({"base_lr": "2e-4"}, "base_lr is '2e-4', of type str; it has to be of type float"),
        ({"base_lr": -1.0}, "base_lr is -1.0; it has to be above 0"),
        ({"base_lr": float("nan")}, "base_lr is nan"),
        ({"margin": -0.1}, "margin is -0.1"),
        ({"schedule": "cosine"}, "schedule is 'cosine'; it has to be exponential or staircase"),
        ({"decay_at_epoch": 301}, "decay_at_epoch is 301; it has to be between 1 and total_epochs"),
        ({"schedule": "staircase", "staircase_at_epochs": (50, 20)}, r"staircase_at_epochs is \(50, 20\)"),
        ({"schedule": "staircase", "staircase_at_epochs": (50.5,)}, "staircase_at_epochs is .* of type tuple"),
        ({"images_per_id": 1}, "images_per_id is 1; it has to be 2 or more"),
        ({"ids_per_batch": 1}, "ids_per_batch is 1; it has to be 2 or more"),
        ({"crop_prob": 1.5}, "crop_prob is 1.5"),
        ({"crop_ratio": 0.0}, "crop_ratio is 0.0"),
        ({"train_part": "test"}, "train_part is 'test'; it has to be trainval or train"),
        ({"precision": "float16"}, "precision is 'float16'"),
        ({"last_stride": 3}, "last_stride is 3"),
        ({"weights": 3}, "weights is 3, of type int"),
        ({"weights": ""}, "weights is ''; it has to be a file, \"imagenet\" or None"),
        ({"normalize": 1}, "normalize is 1, of type int; it has to be of type bool"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**32}, "seed is 4294967296; it has to be from 0 to 4294967295"),
        ({"seed": 2**32 - 1, "num_models": 2}, "it has to be from 0 to 4294966295"),  # the second has seed + 1000
        ({"height": 10**9}, "height is 1000000000; it has to be from 1 to 2048"),
        ({"base_lr": float("inf")}, "base_lr is inf; it has to be a finite number"),
        ({"id_weight": float("-inf")}, "id_weight is -inf; it has to be a finite number"),
        ({"margin": 10**400}, "margin is 1000.*; it has to be a finite number"),
        ({"weights": ["a.pth"]}, r"weights is \['a.pth'\], of type list; it has to be of type str | None"),
        ({"backbones": {"resnet18": 2}, "num_models": 2}, "backbones is .*, of type dict; it has to be a list of str"),
        ({"backbones": None}, "backbones is None, of type NoneType; it has to be a list of str"),
        ({"data_root": datetime.date(2026, 10, 11)}, "data_root is .*, of type date; it has to be of type str"),
    ],
)
def test_nonsense_is_refused_by_name(setting, message):
    with pytest.raises(InputError, match=message):
        TrainConfig(**setting)


def test_whole_numbers_and_lists_from_yaml_are_taken():
    config = TrainConfig(margin=1, schedule="staircase", staircase_at_epochs=[5, 9], decay_at_epoch=999)
    assert config.margin == 1.0 and isinstance(config.margin, float)
    assert config.staircase_at_epochs == (5, 9)
    assert TrainConfig(margin=None).margin is None


def test_one_item_where_several_may_be_given_is_a_list_of_one():
    config = TrainConfig(schedule="staircase", staircase_at_epochs=5, backbones="resnet18", model_devices=["cpu"])
    assert (config.staircase_at_epochs, config.backbones, config.model_devices) == ((5,), ("resnet18",), ("cpu",))


@pytest.mark.parametrize(
    ("value", "hint", "typed_value"),
    [
        ([0, 0.5, 1], tuple[float, ...], (0.0, 0.5, 1.0)),
        (1, tuple[float, ...], (1.0,)),
        ((), tuple[str, ...], ()),
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
        ({"run_dir": 1}, "run_dir is 1, of type int; it has to be of type str"),
        ({"archive": None}, "archive is None, of type NoneType"),
        (
            {"test_distances": ["globl"]},
            r"test_distances is \('globl',\); it has to be one or several of global, rigid",
        ),
        ({"test_distances": "global,local"}, r"several are written \[global,local\]"),
        ({"test_distances": []}, r"test_distances is \(\)"),
        ({"test_distances": 5}, "test_distances is 5, of type int; it has to be a list of str"),
        ({"test_distances": None}, "test_distances is None"),
        ({"test_rerank": "yes"}, "test_rerank is 'yes', of type str; it has to be of type bool"),
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
        ({"study_seeds": [1, "a"]}, r"study_seeds is \[1, 'a'\], of type list; it has to be a list of int"),
        ({"study_seeds": [1, 1]}, "study_seeds is .*; it has to be different seeds from 0"),
        ({"study_seeds": [-1]}, "study_seeds is"),
        ({"study_seeds": True}, "study_seeds is True"),
        ({"num_val_ids": -1}, "num_val_ids is -1; it has to be 0 or more, or None"),
        ({"num_val_ids": 1.5}, "num_val_ids is 1.5, of type float"),
        ({"test_share": 2}, "test_share is 2.0; it has to be from 0 to 1, or None"),
        ({"test_share": float("nan")}, "test_share is nan"),
        ({"pattern": 1}, "pattern is 1, of type int"),
    ],
)
def test_what_a_full_run_is_given_is_checked_when_its_plan_is_made(setting, message):
    with pytest.raises(InputError, match=message) as caught:
        testing.Plan(**{"run_dir": "runs/mine"} | setting)
    assert "\n" not in str(caught.value)


def test_a_plan_takes_one_name_as_a_list_of_one():
    plan = testing.Plan("runs/mine", test_sets="market1501", test_distances="local", study_seeds=3, test_share=1)
    assert (plan.test_sets, plan.test_distances, plan.study_seeds) == (("market1501",), ("local",), (3,))
    assert plan.data["test_sets"] == ("market1501",) and plan.data["test_share"] == 1.0
