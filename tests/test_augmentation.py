"""Augmentation in its two forms: image by image in threads, and in a few operations of a device."""

import contextlib
import dataclasses
import sys

import numpy as np
import pytest
import torch
from host_waits import forbid_host_waits
from oracles import augmented_one_by_one
from PIL import Image
from test_training import MUTUAL, config, same  # noqa: F401  (config is a fixture)

from alignedreid_lib import devices, training
from alignedreid_lib.batches import images
from alignedreid_lib.batches.augmentation import PackedBatch, draw_views
from alignedreid_lib.batches.sampling import IdentitySampler
from alignedreid_lib.datasets import open_dataset
from alignedreid_lib.errors import InputError
from alignedreid_lib.training import epoch as epochs

pytestmark = pytest.mark.arithmetic

CPU = torch.device("cpu")
CROPS = (0.5, 0.6, 0.4)  # probabilities of a mirror and of a crop, and the smallest share of a side


@pytest.fixture
def paths(tmp_path):
    """37 images, of 20 to 24 x 8 to 10 pixels, of noise: neighbours differ by many grey levels."""
    rng = np.random.default_rng(0)
    for index in range(37):
        pixels = rng.integers(0, 256, (20 + index % 5, 8 + index % 3, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index:02}.png")
    return sorted(tmp_path.glob("*.png"))


@pytest.fixture
def accelerated(monkeypatch):
    """The CPU counts as a device that computes while the host goes on."""
    monkeypatch.setattr(devices, "is_accelerator", lambda device: True)


def generator():
    return torch.Generator().manual_seed(3)


@pytest.mark.parametrize("size", [(24, 12), (11, 30)])
@pytest.mark.parametrize("how", [CROPS, (0.5, 0.0, 1.0), (1.0, 1.0, 0.02)])
def test_batches_are_those_of_the_first_version_bit_for_bit_whatever_the_threads(paths, size, how):
    fetched = images.ImageStore(paths).fetch(range(37))
    expected = augmented_one_by_one(fetched, size, generator(), *how)
    assert torch.equal(images.augment(fetched, size, generator(), *how), expected)
    for workers in (1, 2, 5):
        store = images.ImageStore(paths, workers=workers)
        assert torch.equal(store.augmented(range(37), size, generator(), *how), expected)


def test_the_threads_share_the_work_and_pass_errors_on(paths):
    store, ran = images.ImageStore(paths, workers=3), []

    class Pool:
        def map(self, function, parts):
            ran.extend(parts)
            return store._pool.map(function, parts)

    fetched = store.fetch(range(37))
    images.augment(fetched, (24, 12), generator(), pool=Pool())
    assert ran == [0, 16, 32]
    with pytest.raises(RuntimeError):
        images.augment([*fetched[:-1], torch.zeros(3, 0, 4, dtype=torch.uint8)], (24, 12), generator(), pool=Pool())


@pytest.mark.parametrize("kept", [True, False])
def test_a_device_computes_the_same_views_within_a_grey_level(paths, accelerated, monkeypatch, kept):
    monkeypatch.setattr(devices, "free_memory", lambda device: sys.maxsize if kept else 0)
    there, here = images.ImageStore(paths, device=CPU), images.ImageStore(paths)
    order = [5, 0, 36, 0, *range(30)]
    for size in ((24, 12), (11, 30), (20, 8)):
        for how in (CROPS, (0.5, 1.0, 0.02), (1.0, 0.0, 1.0)):
            packed = there.augmented(order, size, generator(), *how)
            assert isinstance(packed, PackedBatch) and (packed.pixels is there._pixels) == kept
            with forbid_host_waits():
                got = packed.to(CPU)
            assert got.dtype == torch.uint8 and got.is_contiguous(memory_format=torch.channels_last)
            wanted = here.augmented(order, size, generator(), *how)
            assert (got.int() - wanted.int()).abs().max() <= 1


def test_a_device_copies_pixels_that_it_does_not_resize(paths, accelerated):
    there, here = images.ImageStore(paths, (16, 8), device=CPU), images.ImageStore(paths, (16, 8))
    packed = there.augmented(range(37), (16, 8), generator(), 0.5, 0.0, 1.0)
    assert not packed.scaled
    assert torch.equal(packed.to(CPU), here.augmented(range(37), (16, 8), generator(), 0.5, 0.0, 1.0))


def test_a_known_view_by_hand():
    """The box (1, 1, 1, 2) of a 2 x 3 image, mirrored and stretched to 1 x 3: its two pixels and their mean between."""
    pixels = torch.tensor([9, 9, 9, 9, 10, 20], dtype=torch.uint8)[:, None].expand(6, 3)
    nothing = draw_views([(2, 3)], (1, 3), generator(), 0, 0, 1)
    views = nothing._replace(boxes=torch.tensor([[1, 1, 1, 2]]), mirrored=torch.tensor([True]))
    batch = PackedBatch.of(torch.cat([pixels[:1], pixels]), [1], [3], views, (1, 3)).to(CPU)
    assert batch[0, 0].tolist() == [[20, 15, 10]]


def test_decisions_do_not_depend_on_the_device_and_stay_inside(paths):
    sizes = [(20 + k % 5, 8 + k % 3) for k in range(500)]
    views = draw_views(sizes, (16, 8), generator(), *CROPS)
    tops, lefts, heights, widths = views.boxes.unbind(1)
    inside = torch.tensor(sizes)
    assert (tops >= 0).all() and (tops + heights <= inside[:, 0]).all()
    assert (lefts >= 0).all() and (lefts + widths <= inside[:, 1]).all() and (widths >= 1).all()
    assert 0.4 < views.mirrored.float().mean() < 0.6
    assert 0.3 < (heights == inside[:, 0]).float().mean() < 0.6


def test_the_store_is_on_the_device_only_where_all_of_it_fits(paths, accelerated, monkeypatch):
    whole = images.ImageStore(paths)
    whole.fetch(range(37))
    need = whole.kept_bytes
    monkeypatch.setattr(devices, "free_memory", lambda device: 8 * need)
    fits = images.ImageStore(paths, device=CPU)
    assert fits._pixels.shape == (need // 3, 3)
    assert all(torch.equal(a, b) for a, b in zip(fits.fetch(range(37)), whole.fetch(range(37)), strict=True))
    assert images.ImageStore(paths, limit_bytes=need - 1, device=CPU)._pixels is None
    monkeypatch.setattr(devices, "free_memory", lambda device: 8 * need - 8)
    rest = images.ImageStore(paths, device=CPU)
    assert rest._pixels is None and rest.kept_bytes == need, "what was decoded stays with the host"
    assert all(torch.equal(a, b) for a, b in zip(rest.fetch(range(37)), whole.fetch(range(37)), strict=True))


def test_free_memory_is_asked_of_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (7, 9))
    assert devices.free_memory(torch.device("cuda", 1)) == 7
    assert devices.free_memory(torch.device("mps")) == sys.maxsize


def test_a_training_through_the_device_s_way_is_the_same_training(config, tmp_path, monkeypatch):  # noqa: F811
    """Bit for bit where nothing is resized; and it packs its batches."""
    plain = training.train(config, tmp_path / "plain")
    monkeypatch.setattr(devices, "is_accelerator", lambda device: True)
    packed, of = [], PackedBatch.of
    monkeypatch.setattr(PackedBatch, "of", lambda *given: packed.append(given) or of(*given))
    there = training.train(config, tmp_path / "there")
    assert packed and same(plain.weights, there.weights)


# Nothing in an epoch makes the host wait for the device, but reading its figures at the end.


@pytest.mark.parametrize("own_views", [False, True])
def test_an_epoch_waits_for_the_device_at_its_end_only(config, accelerated, monkeypatch, own_views):  # noqa: F811
    """All terms, two models, crops on the device. The figures are read after the last step and not before."""
    settings = dataclasses.replace(config, **MUTUAL, crop_prob=0.5, crop_ratio=0.7, own_views=own_views)
    dataset = open_dataset(settings.folder, "trainval")
    sampler = IdentitySampler(dataset.labels, 3, 2, 1)
    learners = [training.make_learner(settings, k, 6) for k in range(2)]
    store = images.ImageStore(dataset.paths, device=CPU)
    steps, step = [], epochs.mutual_step
    with forbid_host_waits() as waits:

        def counted(*given):
            steps.append(step(*given))
            if len(steps) == len(sampler):
                waits.depth += 1  # the end of the epoch: from here reading is allowed
            return steps[-1]

        monkeypatch.setattr(epochs, "mutual_step", counted)
        row = epochs.train_epoch(1, learners, store, dataset.labels, sampler, settings)
    assert len(steps) == len(sampler) == 2 and row["model2_local_mutual_loss"] > 0


def test_an_epoch_reads_nothing_of_a_device_before_its_end(config, monkeypatch):  # noqa: F811
    """On torch's device `meta`, whose tensors have no values: each reading and each copy to the host is an error."""
    meta = torch.device("meta")
    settings = dataclasses.replace(config, **MUTUAL, crop_prob=0.5, crop_ratio=0.7, own_views=True)
    dataset = open_dataset(settings.folder, "trainval")
    sampler = IdentitySampler(dataset.labels, 3, 2, 1)
    learners = [training.make_learner(settings, k, 6) for k in range(2)]
    for learner in learners:
        network = learner.network.to(meta)
        learner.forward, learner.device = network, meta
        learner.optimizer = torch.optim.Adam(network.parameters())
    store = images.ImageStore(dataset.paths, device=meta)
    assert store._pixels.device == meta
    steps, step = [], epochs.mutual_step
    monkeypatch.setattr(torch, "autocast", lambda *how, **more: contextlib.nullcontext())  # there is none for meta
    monkeypatch.setattr(epochs, "mutual_step", lambda *how: steps.append(how[1][0].shape) or step(*how))
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor") as error:
        epochs.train_epoch(1, learners, store, dataset.labels, sampler, settings)
    assert steps == [(6, 3, 32, 16)] * len(sampler)
    assert ".cpu()" in str(error.traceback[1].statement), "the figures, read at the end"


def test_what_is_sent_to_a_device_is_pinned_and_sent_without_waiting(monkeypatch):
    pinned, sent = [], []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tuple(tensor.shape)) or tensor)
    to = torch.Tensor.to
    monkeypatch.setattr(torch.Tensor, "to", lambda *how, **more: sent.append((how[1], more)) or to(*how, **more))
    views = draw_views([(4, 2)], (4, 2), generator(), *CROPS)
    for where, expected in (("cpu", [(8, 3), (1, 13)]), ("meta", [(1, 13)])):
        pixels = torch.zeros(8, 3, dtype=torch.uint8, device=where)
        PackedBatch.of(pixels, [0], [2], views, (4, 2)).pin_memory().to(torch.device("meta"), non_blocking=True)
        assert pinned == expected, "what is on the device stays there"
        moved = [more for place, more in sent if isinstance(place, torch.device)]
        assert moved == [{"non_blocking": True}] * 3
        pinned.clear(), sent.clear()


# Views of each model's own


def test_own_views_are_drawn_from_run_epoch_batch_and_model(config, tmp_path, monkeypatch):  # noqa: F811
    seeds, given, make_batch, step = [], [], epochs.make_batch, epochs.mutual_step
    monkeypatch.setattr(epochs, "make_batch", lambda *how: seeds.append((how[3], list(how[1]))) or make_batch(*how))
    monkeypatch.setattr(epochs, "mutual_step", lambda *how: given.append(how[1]) or step(*how))
    settings = dataclasses.replace(config, num_models=2, own_views=True, global_mutual_weight=1.0, total_epochs=3)
    training.train(settings, tmp_path / "run")
    assert [seed for seed, _ in seeds] == [(1, e, b, k) for e in (1, 2, 3) for b in (0, 1) for k in (0, 1)]
    assert all(one == two for (_, one), (_, two) in zip(seeds[::2], seeds[1::2], strict=True)), "the same images"
    assert all(len(batches) == 2 for batches in given)
    assert any(not torch.equal(*batches) for batches in given), "mirrored by each for itself"
    assert torch.equal(given[0][0], make_batch(*_first_batch(settings), (1, 1, 0))), "the first sees what all saw"


def _first_batch(settings):
    dataset = open_dataset(settings.folder, "trainval")
    sampler = IdentitySampler(dataset.labels, 3, 2, 1)
    return images.ImageStore(dataset.paths, (32, 16)), next(iter(sampler)), settings


def test_own_views_part_models_that_start_equal(config, tmp_path):  # noqa: F811
    start = tmp_path / "start.pth"
    torch.save(training.make_learner(config, 0, 6).network.state_dict(), start)
    settings = dataclasses.replace(config, num_models=2, weights=str(start), own_views=True, global_mutual_weight=1.0)
    result = training.train(settings, tmp_path / "run")
    assert result.metrics[0]["model1_global_mutual_loss"] > 0
    assert not same(*result.all_weights)


def test_own_views_need_several_models(config):  # noqa: F811
    with pytest.raises(InputError, match="own_views is True; it has to be False, or num_models 2 or more"):
        dataclasses.replace(config, own_views=True)
