"""Feature extraction: the network's own answers, in order, and nothing changed by asking."""

import numpy as np
import pytest
import torch
from host_waits import forbid_host_waits
from PIL import Image

from alignedreid_lib import devices
from alignedreid_lib.batches import images
from alignedreid_lib.datasets import Dataset
from alignedreid_lib.errors import InputError
from alignedreid_lib.evaluation import features
from alignedreid_lib.evaluation.features import cache_key, extract
from alignedreid_lib.model import AlignedReID

pytestmark = pytest.mark.arithmetic

SIZE = {"height": 64, "width": 32, "precision": "float32"}  # on every processor


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return AlignedReID("resnet18", local_channels=4).eval()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Seven pictures, of two sizes."""
    folder = tmp_path_factory.mktemp("dataset")
    rng = np.random.default_rng(0)
    paths = []
    for k in range(7):
        paths.append(folder / f"0000000{k}_0000_00000000.jpg")
        Image.fromarray(rng.integers(0, 256, (80 + 8 * (k % 2), 40, 3), dtype=np.uint8)).save(paths[-1])
    numbers = np.arange(7)
    return Dataset(folder, "test", paths, numbers, numbers % 3, None, numbers % 2)


def test_features_are_those_of_each_picture_alone_in_order(model, dataset):
    features = extract(model, dataset, **SIZE, batch_size=3)
    for k, path in enumerate(dataset.paths):
        picture = images.resize(images.decode(path), (64, 32))
        with torch.no_grad():
            wanted = model(images.normalize(picture[None]))
        torch.testing.assert_close(features.global_features[k], wanted.global_features[0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(features.local_features[k], wanted.local_features[0], rtol=1e-4, atol=1e-4)
    assert features.global_features.shape == (7, 512) and features.local_features.shape == (7, 2, 4)
    assert features.names == [path.name for path in dataset.paths]
    for name in ("ids", "cameras", "marks"):
        np.testing.assert_array_equal(getattr(features, name), getattr(dataset, name))


def test_features_are_plain_float32_tensors_on_the_cpu(model, dataset):
    features = extract(model, dataset, height=64, width=64, precision="bfloat16")
    for tensor in (features.global_features, features.local_features):
        assert tensor.dtype == torch.float32 and tensor.device.type == "cpu"
        assert not tensor.is_inference() and not tensor.requires_grad
    exact = extract(model, dataset, height=64, width=64, precision="float32")
    assert not torch.equal(features.global_features, exact.global_features)
    torch.testing.assert_close(features.global_features, exact.global_features, rtol=0.1, atol=0.1)


def test_the_model_is_in_evaluation_mode_and_every_mode_is_restored(dataset):
    torch.manual_seed(0)
    model = AlignedReID("resnet18", local_channels=4).train()
    model.local_bn.eval()  # frozen on purpose by its owner
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    first = extract(model, dataset, **SIZE)
    assert model.training and model.base.training and not model.local_bn.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), f"{name} changed"
    torch.testing.assert_close(first.global_features, extract(model.eval(), dataset, **SIZE).global_features)


def test_out_of_memory_names_the_images_and_what_to_lower(model, dataset, monkeypatch):
    def full(images):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(model, "forward", full)
    message = r"part test: features of 3 images of 64 x 32 at a time: out of memory; .*lower batch_size.* device 'cpu'$"
    with pytest.raises(InputError, match=message):
        extract(model, dataset, height=64, width=32, batch_size=3)
    assert not torch.is_inference_mode_enabled()


def test_modes_are_restored_when_a_picture_does_not_decode(model, dataset, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"not a picture")
    bad = Dataset(tmp_path, "test", [dataset.paths[0], broken], *(np.zeros(2, int),) * 2, None, np.zeros(2, int))
    model.train()
    with pytest.raises(InputError, match=r"broken\.jpg"):
        extract(model, bad, **SIZE, batch_size=1)
    assert model.training
    model.eval()


def test_a_store_is_shared_and_has_to_be_the_datasets(model, dataset):
    store = images.ImageStore(dataset.paths)  # pictures of their own sizes
    features = extract(model, dataset, **SIZE, store=store)
    assert store.kept_bytes > 0
    assert torch.equal(features.global_features, extract(model, dataset, **SIZE).global_features)
    with pytest.raises(InputError, match="store"):
        extract(model, dataset, store=images.ImageStore(dataset.paths[:3]))


def test_a_training_part_has_no_marks(model, dataset):
    numbers = np.arange(7)
    trainval = Dataset(dataset.folder, "trainval", dataset.paths, numbers, numbers, numbers, None)
    np.testing.assert_array_equal(extract(model, trainval, **SIZE).marks, [-1] * 7)


def test_some_of_the_features(model, dataset):
    features = extract(model, dataset, **SIZE)
    for chosen in (features.marks == 1, np.array([1, 3, 5]), slice(1, 7, 2)):
        part = features[chosen]
        assert len(part) == 3 and part.names == features.names[1::2]
        np.testing.assert_array_equal(part.ids, [1, 3, 5])
        assert torch.equal(part.global_features, features.global_features[1::2])
        assert torch.equal(part.local_features, features.local_features[1::2])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"precision": "float8"}, "float8"),
        ({"device": "abacus"}, "abacus"),
    ],
)
def test_bad_settings_are_refused(model, dataset, settings, words):
    with pytest.raises(InputError, match=words):
        extract(model, dataset, **settings)


def test_no_pictures_are_refused(model, dataset):
    none = np.zeros(0, int)
    with pytest.raises(InputError, match="no images"):
        extract(model, Dataset(dataset.folder, "test", [], none, none, None, none))


def test_flipped_views_are_averaged(model, dataset, tmp_path):
    plain, both = (extract(model, dataset, **SIZE, flip=flip) for flip in (False, True))
    mirrored = []
    for path in dataset.paths:
        mirrored.append(tmp_path / path.name.replace(".jpg", ".png"))
        Image.fromarray(images.decode(path).permute(1, 2, 0).numpy()[:, ::-1]).save(mirrored[-1])
    other = extract(model, Dataset(tmp_path, "test", mirrored, *[dataset.ids] * 2, None, dataset.marks), **SIZE)
    for part in ("global_features", "local_features"):
        wanted = (getattr(plain, part) + getattr(other, part)) / 2
        torch.testing.assert_close(getattr(both, part), wanted, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(plain.global_features, both.global_features, atol=1e-3)


def test_features_are_found_again(model, dataset, tmp_path, monkeypatch):
    first = extract(model, dataset, **SIZE, cache=tmp_path / "kept")
    (kept,) = (tmp_path / "kept").iterdir()
    monkeypatch.setattr(images, "decode", None)
    again = extract(model, dataset, **SIZE, cache=tmp_path / "kept")
    assert torch.equal(first.global_features, again.global_features)
    assert torch.equal(first.local_features, again.local_features)
    monkeypatch.undo()
    extract(model, dataset, **SIZE, flip=True, cache=tmp_path / "kept")  # another setting, another file
    torch.manual_seed(1)
    other = AlignedReID("resnet18", local_channels=4)
    changed = extract(other, dataset, **SIZE, cache=tmp_path / "kept")  # other weights
    assert not torch.equal(changed.global_features, first.global_features)
    assert len(list((tmp_path / "kept").iterdir())) == 3
    kept.write_bytes(kept.read_bytes()[:100])  # cut short: made anew
    mended = extract(model, dataset, **SIZE, cache=tmp_path / "kept")
    assert torch.equal(mended.global_features, first.global_features) and len(kept.read_bytes()) > 100


def test_batches_come_from_pinned_memory_and_meet_weights_of_their_layout(dataset, monkeypatch):
    """A stand-in: the CPU is taken for a GPU, and pinning only counts."""
    pinned, layouts = [], []
    monkeypatch.setattr(devices, "is_accelerator", lambda device: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda batch: pinned.append(len(batch)) or batch)
    model = AlignedReID("resnet18", local_channels=4)
    channels_last = {"memory_format": torch.channels_last}
    model.base.layer1[0].conv1.register_forward_hook(
        lambda module, given, output: layouts.extend(
            x.is_contiguous(**channels_last) for x in (module.weight, given[0])
        )
    )
    extract(model, dataset, **SIZE, batch_size=3)
    assert pinned == [3, 3, 1] and layouts and all(layouts)
    monkeypatch.undo()
    extract(model, dataset, **SIZE)
    assert pinned == [3, 3, 1], "a CPU reads the images where they are"


def test_the_host_waits_once_for_all_features(model, dataset, monkeypatch):
    wanted = extract(model, dataset, **SIZE, batch_size=2)
    monkeypatch.setattr(devices, "is_accelerator", lambda device: True)
    with forbid_host_waits() as waits:
        monkeypatch.setattr(devices, "fetch", waits.allowing(devices.fetch))
        found = extract(model, dataset, **SIZE, batch_size=2, flip=False)
    assert torch.equal(found.global_features, wanted.global_features)
    assert waits.fetched == {"fetch": 2}, "global and local features"


def key(dataset, settings=None, build=None, **how):
    """The key of features of a network of one seed, changed by `settings` (module: {name: value})."""
    torch.manual_seed(0)
    network = AlignedReID(**{"backbone": "resnet18", "local_channels": 4} | (build or {})).eval()
    for module, values in (settings or {}).items():
        for name, value in values.items():
            setattr(network.get_submodule(module), name, value)
    how = {"sizes": [(64, 32)], "flip": False, "device": "cpu", "precision": "torch.float32"} | how
    return cache_key(network, dataset, **how)


@pytest.mark.parametrize(
    "changed",
    [
        {"build": {"last_stride": 1}},
        {"settings": {"base.conv1": {"padding": (2, 2)}}},
        {"settings": {"base.conv1": {"padding_mode": "reflect"}}},
        {"settings": {"base.layer1.0.conv1": {"dilation": (2, 2)}}},
        {"settings": {"base.maxpool": {"ceil_mode": True}}},
        {"settings": {"base.bn1": {"eps": 1e-3}}},
        {"settings": {"": {"local_relu": torch.nn.GELU()}}},
        {"sizes": [(64, 64)]},
        {"sizes": [(32, 16), (64, 32)]},
        {"flip": True},
        {"device": "cuda"},
        {"precision": "torch.bfloat16"},
    ],
    ids=str,
)
def test_a_key_names_all_that_builds_network_and_batch(dataset, changed):
    assert key(dataset, **changed) != key(dataset)


def test_a_key_does_not_depend_on_the_classifier_the_mode_or_the_layout(dataset):
    plain, how = key(dataset), {"sizes": [(64, 32)], "flip": False, "device": "cpu", "precision": "torch.float32"}
    torch.manual_seed(0)
    network = AlignedReID("resnet18", local_channels=4, num_ids=7)
    assert plain == cache_key(network, dataset, **how)
    assert plain == cache_key(network.train().to(memory_format=torch.channels_last), dataset, **how)


def test_a_new_version_makes_new_keys(dataset, monkeypatch):
    before = key(dataset)
    for owner, name, value in ((features, "KEY_VERSION", 99), (images, "MEAN", (0.5, 0.5, 0.5))):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, value)
            assert key(dataset) != before


def test_a_store_of_small_images_has_features_of_its_own(model, dataset, tmp_path):
    """It enlarges what it has made small, and the key says so; a store of the network's size does not matter."""
    plain = extract(model, dataset, **SIZE, cache=tmp_path)
    for size, alike in (((16, 8), False), ((64, 32), True), (None, True)):
        found = extract(model, dataset, **SIZE, cache=tmp_path, store=images.ImageStore(dataset.paths, size))
        assert torch.equal(found.global_features, plain.global_features) is alike
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("content", [b"", b"<html>", [1, 2], [torch.ones(3), torch.ones(3)], {"a": 1}, None])
def test_kept_features_that_cannot_be_read_are_made_again(model, dataset, tmp_path, content):
    once = extract(model, dataset, **SIZE, cache=tmp_path)
    (kept,) = tmp_path.iterdir()
    whole = kept.stat().st_size
    if content is None:
        kept.write_bytes(kept.read_bytes()[:-100])
    elif isinstance(content, bytes):
        kept.write_bytes(content)
    else:
        torch.save(content, kept)
    again = extract(model, dataset, **SIZE, cache=tmp_path)
    assert torch.equal(once.global_features, again.global_features)
    assert kept.stat().st_size == whole, "and kept"


def test_a_cache_that_cannot_be_is_refused_before_the_work(model, dataset, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(images, "decode", None)
    with pytest.raises(InputError, match=r"file: cannot be made .a file has this name.; choose a different folder"):
        extract(model, dataset, **SIZE, cache=tmp_path / "file")
