"""The strong recipe: each part equals a plain loop, and runs with it resume, share and teach as before."""

import dataclasses
import math

import pytest
import torch
import torchvision
from test_augmentation import accelerated, paths  # noqa: F401  (fixtures)
from test_distributed import one_step, quick  # noqa: F401  (a fixture)
from test_training import config, same, stop_after  # noqa: F401  (config is a fixture)

from alignedreid_lib import losses
from alignedreid_lib.batches import erasing, images
from alignedreid_lib.batches.augmentation import draw_views
from alignedreid_lib.errors import InputError
from alignedreid_lib.evaluation import full_run
from alignedreid_lib.model import AlignedReID
from alignedreid_lib.model.pooling import GeneralisedMean, generalised_mean
from alignedreid_lib.training import TrainConfig, centres, launching, learning_rate, load_network, step, train
from alignedreid_lib.training import learner as making

CPU = torch.device("cpu")
STRONG = {
    "id_weight": 1.0, "label_smoothing": 0.1, "warmup_epochs": 1, "pad": 3, "erase_prob": 0.5, "pooling": "gem",
    "neck": "batchnorm", "centre_weight": 1e-2, "schedule": "cosine", "decay_at_epoch": 2, "normalize_test": True,
    "local_weight": 1.0,
}  # fmt: skip


def generator(seed=3):
    return torch.Generator().manual_seed(seed)


# Each part by itself


def test_smoothed_cross_entropy_equals_a_plain_loop():
    logits, labels = torch.randn(5, 7, dtype=torch.float64), torch.tensor([0, 6, 3, 3, 1])
    total = 0.0
    for row, label in zip(logits, labels, strict=True):
        log_sum = math.log(sum(math.exp(value) for value in row))
        for k, value in enumerate(row):
            total -= (0.9 * (k == label) + 0.1 / 7) * (value - log_sum)
    assert losses.identification(logits, labels, 0.1).item() == pytest.approx(float(total) / 5)
    assert torch.equal(losses.identification(logits, labels), losses.identification(logits, labels, 0.0))


def test_generalised_mean_equals_a_plain_loop_and_its_limits():
    feature_map = torch.rand(2, 3, 4, 2, dtype=torch.float64)
    for power in (1.0, 3.0, 6.5):
        found = generalised_mean(feature_map, power)
        for n in range(2):
            for c in range(3):
                cells = [float(feature_map[n, c, y, x]) ** power for y in range(4) for x in range(2)]
                assert float(found[n, c]) == pytest.approx((sum(cells) / 8) ** (1 / power))
    torch.testing.assert_close(generalised_mean(feature_map, 1.0), feature_map.mean((2, 3)))
    torch.testing.assert_close(generalised_mean(feature_map, 500.0), feature_map.amax((2, 3)), rtol=0.01, atol=0)


def test_the_power_is_learnt_and_zeros_have_a_finite_gradient():
    pool, feature_map = GeneralisedMean(), torch.zeros(1, 2, 3, 2, requires_grad=True)
    pool(torch.cat([feature_map, torch.rand(1, 2, 3, 2)])).sum().backward()
    assert pool.power.grad.isfinite() and pool.power.grad != 0 and feature_map.grad.isfinite().all()
    rounded = torch.rand(1, 2, 3, 2).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(pool(rounded), generalised_mean(rounded.float(), pool.power)), "in float32"


def test_centre_loss_and_its_centres_equal_plain_loops():
    features, labels = torch.randn(6, 4), torch.tensor([2, 0, 2, 2, 0, 1])
    found = torch.randn(5, 4)
    before, own = found.clone(), features.clone().requires_grad_()
    loss = centres.centre_loss(own, labels, found)
    loss.backward()
    wanted = sum(float(((f - before[label]) ** 2).sum()) for f, label in zip(features, labels, strict=True)) / 12
    assert loss.item() == pytest.approx(wanted, rel=1e-5)
    torch.testing.assert_close(own.grad, (features - before[labels]) / 6)
    centres.move_centres(found, features, labels, 0.5)
    for k in range(5):
        mine = [f for f, label in zip(features, labels, strict=True) if label == k]
        moved = before[k] - 0.5 * sum(before[k] - f for f in mine) / (1 + len(mine))
        torch.testing.assert_close(found[k], moved)
    assert torch.equal(found[3:], before[3:]), "without images a centre stays"


def test_cosine_by_hand():
    settings = TrainConfig(schedule="cosine", total_epochs=12, decay_at_epoch=3, base_lr=1.0, warmup_epochs=2)
    rates = [learning_rate(settings, epoch) for epoch in range(1, 13)]
    assert rates[:2] == pytest.approx([1 / 3, 2 / 3])
    wanted = [0.001 + 0.999 * (1 + math.cos(math.pi * k / 10)) / 2 for k in range(1, 11)]
    assert rates[2:] == pytest.approx(wanted)


# Padded crops and erasing


def test_rectangles_are_torchvision_s():
    """Its generator is the global one; with the same state both draw the same rectangles."""
    drawn = []
    for seed in range(40):
        torch.manual_seed(seed)
        image = torch.zeros(3, 32, 12)
        *wanted, filled = torchvision.transforms.RandomErasing.get_params(image, erasing.AREA, erasing.RATIO, [0.0])
        found = erasing.random_rectangle(32, 12, generator(seed))
        drawn.append(found)
        assert found == ((0, 0, 0, 0) if filled is image else tuple(wanted))
    assert len(set(drawn)) > 30


def test_a_strip_too_thin_for_a_rectangle_is_left_alone():
    assert erasing.random_rectangle(40, 1, generator()) == (0, 0, 0, 0)


def covered_one_by_one(image, shift, rectangle):
    """A padded crop and an erased rectangle, pixel by pixel."""
    result = torch.zeros_like(image)
    _, h, w = image.shape
    for y in range(h):
        for x in range(w):
            if 0 <= y + shift[0] < h and 0 <= x + shift[1] < w:
                result[:, y, x] = image[:, y + shift[0], x + shift[1]]
            if 0 <= y - rectangle[0] < rectangle[2] and 0 <= x - rectangle[1] < rectangle[3]:
                result[:, y, x] = torch.tensor(erasing.MEAN_COLOUR, dtype=torch.uint8)
    return result


COVERED = (0.5, 0.6, 0.4, 3, 0.7)  # mirror, crop, its smallest side; pad and erase


def test_batches_are_padded_cropped_and_erased_as_a_loop_does(paths):  # noqa: F811
    size = (24, 12)
    fetched = images.ImageStore(paths).fetch(range(37))
    plain = images.augment(fetched, size, generator(), *COVERED[:3])
    views = draw_views([tuple(image.shape[1:]) for image in fetched], size, generator(), *COVERED)
    wanted = [covered_one_by_one(*given) for given in zip(plain, views.shifts, views.erased, strict=True)]
    found = images.augment(fetched, size, generator(), *COVERED)
    assert torch.equal(found, torch.stack(wanted)), "what was drawn before stays as it is without them"
    assert torch.equal(images.ImageStore(paths, workers=4).augmented(range(37), size, generator(), *COVERED), found)
    shifts = {tuple(row) for row in views.shifts.tolist()}
    assert len(shifts) > 20 and views.shifts.abs().max() == 3
    assert 15 < (views.erased[:, 2] > 0).sum() < 35


def test_what_is_erased_is_never_border():
    views = draw_views([(24, 12)] * 400, (24, 12), generator(), 0, 0, 1, 6, 1.0)
    for (down, right), (top, left, h, w) in zip(views.shifts.tolist(), views.erased.tolist(), strict=True):
        if h:
            assert max(0, -down) <= top and top + h <= 24 - max(0, down)
            assert max(0, -right) <= left and left + w <= 12 - max(0, right)


@pytest.mark.parametrize("size", [(24, 12), (20, 8)])
def test_a_device_covers_the_same_pixels(paths, accelerated, size):  # noqa: F811
    there, here = images.ImageStore(paths, size, device=CPU), images.ImageStore(paths, size)
    for how in (COVERED, (0.5, 0.0, 1.0, 0, 1.0), (0.5, 0.0, 1.0, 5, 0.0)):
        packed = there.augmented(range(37), size, generator(), *how)
        assert packed.covered
        got, wanted = packed.to(CPU), here.augmented(range(37), size, generator(), *how)
        assert (got.int() - wanted.int()).abs().max() <= (1 if packed.scaled else 0)
    assert not there.augmented(range(37), size, generator(), *COVERED[:3]).covered


# The neck


def test_each_side_of_the_neck_is_used_in_its_place(config):  # noqa: F811
    settings = dataclasses.replace(config, **STRONG | {"local_weight": 0.0})
    learner = making.make_learner(settings, 0, num_ids=6)
    network, batch = learner.network, torch.randint(0, 256, (6, 3, 32, 16), dtype=torch.uint8)
    labels, seen = torch.arange(6) // 2, {}
    network.neck.register_forward_hook(lambda _, given, output: seen.update(before=given[0], after=output))
    network.fc.register_forward_hook(lambda _, given, output: seen.update(classified=given[0]))
    network.train()
    figures = step.train_step(learner, batch, labels, settings)
    before, after = seen["before"].flatten(1), seen["after"].flatten(1)
    torch.testing.assert_close(after.mean(0), torch.zeros(len(after[0])), atol=1e-4, rtol=0)
    assert not torch.allclose(before, after, atol=0.1)
    assert torch.equal(seen["classified"], after), "the classifier takes the features after it"
    assert figures["global_loss"] == losses.global_triplet(before, labels, 0.3, False).loss, "triplets those before"
    assert network.fc.bias is None and not network.neck.bias.requires_grad and not network.neck.bias.any()
    assert network.neck.weight.grad is not None
    network.eval()
    found = network(images.normalize(batch))
    assert torch.equal(found.global_features, seen["after"].flatten(1)), "the test those after it"


def test_an_unknown_neck_or_pooling_is_refused():
    for name in ("neck", "pooling"):
        with pytest.raises(InputError, match=f"{name} is 'other'; it has to be one of"):
            AlignedReID("shufflenet_v2_x0_5", **{name: "other"})


# Trainings


def test_a_run_goes_on_bit_for_bit_and_its_weights_are_loaded(config, tmp_path, monkeypatch):  # noqa: F811
    settings = dataclasses.replace(config, **STRONG)
    whole = train(settings, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(settings, tmp_path / "cut", report=stop_after(2))
    kept = torch.load(tmp_path / "cut" / "checkpoint.pt", weights_only=True)["models"][0]["centres"]
    assert kept.shape[0] == 6 and kept.any(dim=1).all(), "every person's centre has moved, and is kept"
    assert same(whole.weights, train(settings, tmp_path / "cut").weights)
    assert whole.metrics[-1]["centre_loss"] > 0
    network = load_network(settings, whole.weights)
    assert network.fc is None and network.centres is None and network.pool.power != 3
    tested, evaluate = [], full_run.evaluate
    monkeypatch.setattr(full_run, "evaluate", lambda *given, **how: tested.append(how) or evaluate(*given, **how))
    assert full_run.score(network, settings, "tiny").rows[0].num_queries == 3
    assert tested[0]["normalize"] and not settings.normalize, "unit length, only at the test"


def test_models_with_it_teach_each_other(config, tmp_path):  # noqa: F811
    teaching = {"num_models": 2, "own_views": True, "probability_weight": 1.0, "global_mutual_weight": 0.1}
    settings = dataclasses.replace(config, **STRONG | teaching | {"total_epochs": 2})
    rows = train(settings, tmp_path / "run").metrics
    assert all(rows[-1][f"model{k}_{name}"] > 0 for k in (1, 2) for name in ("probability_loss", "centre_loss"))


def test_several_processes_compute_the_step_of_one(config, quick):  # noqa: F811
    alone = dataclasses.replace(config, **STRONG, ids_per_batch=4)
    shared = dataclasses.replace(alone, processes=2, sync_batch_norm=True)
    (loss, gradients, buffers), own = launching.launch(2, "cpu", one_step, shared), one_step(alone)
    torch.testing.assert_close(loss, own[0])
    assert gradients.keys() == own[1].keys() and gradients["neck.bias"] is None
    for name, gradient in own[1].items():
        if gradient is not None:
            torch.testing.assert_close(gradients[name], gradient, rtol=1e-4, atol=1e-7)
    for name in ("centres", "neck.running_mean", "neck.running_var"):
        torch.testing.assert_close(buffers[name], own[2][name], rtol=1e-5, atol=1e-8)
