"""Settings are refused when they are made; the learning rate is the original's."""

from pathlib import Path

import numpy as np
import pytest

from alignedreid_lib.errors import InputError
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
        ({"normalize": 1}, "normalize is 1, of type int; it has to be of type bool"),
        ({"seed": -1}, "seed is -1"),
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
