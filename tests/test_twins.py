"""Two models that start equal: refused, parted by noise, or stopped after an epoch in which they taught nothing."""

import dataclasses

import pytest
import torch

from alignedreid_lib.errors import InputError
from alignedreid_lib.model import AlignedReID
from alignedreid_lib.training import TrainConfig, loop, make_learner, train
from alignedreid_lib.training import epoch as epochs


@pytest.fixture
def config(tiny_data, tmp_path):
    """Two models of one weights file with the global loss alone."""
    start = tmp_path / "start.pth"
    torch.save(AlignedReID("shufflenet_v2_x0_5").state_dict(), start)
    return TrainConfig(
        data_root=str(tiny_data), dataset="tiny", height=32, width=16, backbone="shufflenet_v2_x0_5",
        weights=str(start), ids_per_batch=3, images_per_id=2, base_lr=1e-3, total_epochs=2, decay_at_epoch=2,
        device="cpu", precision="float32", num_models=2, global_mutual_weight=1.0,
    )  # fmt: skip


def backbones(config):
    return [dict(make_learner(config, k, 4).network.base.named_parameters()) for k in range(config.num_models)]


def test_noise_changes_each_parameter_of_all_models_but_the_first_by_a_millionth(config):
    plain = backbones(config)[0]
    config = dataclasses.replace(config, twins="noise", num_models=3)
    noisy = backbones(config)
    assert all(torch.equal(noisy[0][name], plain[name]) for name in plain), "the first model is that of a single run"
    for model in noisy[1:]:
        relative = torch.cat(
            [(model[n].double() / plain[n].double() - 1).flatten()[plain[n].flatten() != 0] for n in plain]
        )
        # The rounding of float32 adds at most 6e-8 to each; normal noise stays below 7 spreads.
        assert 0.9e-6 < relative.std() < 1.1e-6 and abs(relative.mean()) < 1e-7 and relative.abs().max() < 7.1e-6
    assert not all(torch.equal(noisy[1][name], noisy[2][name]) for name in plain), "each model has noise of its own"
    again = backbones(config)
    assert all(torch.equal(a[name], b[name]) for a, b in zip(noisy, again, strict=True) for name in plain)


def test_noise_takes_nothing_from_the_generators_of_the_training(config):
    make_learner(config, 1, 4)
    expected = torch.rand(3)
    make_learner(dataclasses.replace(config, twins="noise"), 1, 4)
    assert torch.equal(torch.rand(3), expected)


def test_models_parted_by_noise_teach_each_other(config, tmp_path):
    with pytest.raises(InputError, match=r"stay equal; set .*twins to 'noise'"):
        train(config, tmp_path / "refused")
    metrics = train(dataclasses.replace(config, twins="noise"), tmp_path / "run").metrics
    assert all(row["model1_global_mutual_loss"] > 0 for row in metrics)


def test_noise_needs_a_second_model(config):
    with pytest.raises(InputError, match="twins is 'noise'; it has to be 'refuse', or num_models above 1"):
        dataclasses.replace(config, num_models=1, global_mutual_weight=0.0, twins="noise")
    with pytest.raises(InputError, match="twins is 'nois'; it has to be 'refuse' or 'noise'"):
        dataclasses.replace(config, twins="nois")


@pytest.mark.parametrize(
    ("more", "term"),
    [
        ({}, "global_mutual_loss"),
        ({"id_weight": 1.0, "probability_weight": 1.0, "global_mutual_weight": 0.0}, "probability_loss"),
        ({"local_weight": 1.0, "local_mutual_weight": 1.0, "global_mutual_weight": 0.0}, "local_mutual_loss"),
    ],
)
def test_an_epoch_in_which_a_mutual_loss_is_0_stops_on_any_device(config, more, term, tmp_path, monkeypatch):
    """A stand-in for twins on a GPU whose rounding does not part them: both models from one seed, unchecked."""
    make = loop.make_learner
    monkeypatch.setattr(loop, "make_learner", lambda config, k, num_ids: make(config, 0, num_ids))
    monkeypatch.setattr(loop, "check_twins", lambda *_: None)
    message = rf"^epoch 1: model1_{term} is exactly 0 in each of its \d+ steps, .*; .*twins to 'noise'"
    with pytest.raises(InputError, match=message):
        train(dataclasses.replace(config, **more), tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoint.pt").exists(), "an epoch that taught nothing is not kept"


def test_a_mutual_loss_that_is_0_in_some_steps_goes_on(config, tmp_path, monkeypatch):
    step, count = epochs.mutual_step, 0

    def now_and_then(*args):
        nonlocal count
        count += 1
        figures = step(*args)
        return [row | {"global_mutual_loss": torch.tensor(float(count % 2))} for row in figures]

    monkeypatch.setattr(epochs, "mutual_step", now_and_then)
    assert len(train(dataclasses.replace(config, twins="noise"), tmp_path / "run").metrics) == 2
