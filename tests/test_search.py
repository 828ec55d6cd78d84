"""From images to answers: all kinds of images, in the dataset's way; an index that changes, is saved and is loaded."""

import dataclasses
import json
import multiprocessing
import os
import signal
import time

import numpy as np
import pytest
import timing
import torch
import transfer
from PIL import Image

from alignedreid_lib import book, evaluation, runs, synthetic
from alignedreid_lib.datasets import Dataset
from alignedreid_lib.errors import InputError
from alignedreid_lib.evaluation.features import Features, extract
from alignedreid_lib.model import AlignedReID
from alignedreid_lib.search import Index, Threshold, embed, nearest_distances, storage
from alignedreid_lib.search.nearest import nearest
from alignedreid_lib.training import TrainConfig, train

pytestmark = pytest.mark.arithmetic

SIZE = {"height": 64, "width": 32, "precision": "float32"}


def network(seed=0):
    torch.manual_seed(seed)
    return AlignedReID("resnet18.layer1", local_channels=4).eval()


@pytest.fixture(scope="module")
def model():
    return network()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Nine images of three people, of several sizes and formats, in folders."""
    root = tmp_path_factory.mktemp("mine")
    rng = np.random.default_rng(0)
    for k in range(9):
        path = root / f"{'abc'[k // 3]}" / f"{k}.{('png', 'jpg')[k % 2]}"
        path.parent.mkdir(exist_ok=True)
        colour = 60 + 80 * (k // 3)
        pixels = np.clip(colour + rng.integers(-20, 20, (60 + k, 30, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(path)
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(pixels).save(root / "c" / "8.png", exif=turned)
    return root


@pytest.fixture(scope="module")
def paths(folder):
    return sorted(folder.rglob("*.*"))


@pytest.fixture(scope="module")
def index(model, folder):
    return Index.build(model, folder, ids=[*"aaabbbccc"], **SIZE)


# embed


def test_images_from_anywhere_get_the_features_of_a_dataset(model, folder, paths):
    numbers = np.arange(len(paths))
    wanted = extract(model, Dataset(folder, "test", paths, numbers, numbers, None, numbers), **SIZE, batch_size=4)
    pictures = [Image.open(path) for path in paths]
    upright = [np.array(Image.open(path)) for path in paths[:-1]]
    upright.append(np.rot90(np.array(pictures[-1]), -1))
    tensors = [torch.from_numpy(array.copy()).permute(2, 0, 1) for array in upright]
    mixed = [str(paths[0]), paths[1], pictures[2], upright[3], *tensors[4:]]
    forms = {"folder": folder, "paths": paths, "arrays": upright, "tensors": tensors, "mixed": mixed}
    forms |= {"a generator": (picture for picture in pictures)}
    for form, given in forms.items():
        found = embed(model, given, **SIZE, batch_size=4)
        assert torch.equal(found.global_features, wanted.global_features), form
        assert torch.equal(found.local_features, wanted.local_features), form
    assert embed(model, folder, **SIZE).names == [path.relative_to(folder).as_posix() for path in paths]
    assert embed(model, mixed, **SIZE).names[:4] == [str(paths[0]), str(paths[1]), "image 2", "image 3"]


def test_one_image_and_a_batch(model, paths):
    pixels = np.array(Image.open(paths[0]))
    for one in (paths[0], str(paths[0]), Image.open(paths[0]), pixels, torch.from_numpy(pixels).permute(2, 0, 1)):
        assert len(embed(model, one, **SIZE)) == 1
    for batch in (np.stack([pixels] * 3), torch.from_numpy(pixels).permute(2, 0, 1).repeat(2, 1, 1, 1)):
        assert len(embed(model, batch, **SIZE)) == len(batch)


def test_no_more_images_are_open_than_a_batch_has(model):
    open_now, most = [0], [0]

    class Frame(np.ndarray):
        def __del__(self):
            open_now[0] -= self.shape[0] == 61

    def frames():
        for _ in range(40):
            frame = np.zeros((61, 30, 3), np.uint8).view(Frame)
            open_now[0] += 1
            most[0] = max(most[0], open_now[0])
            yield frame

    assert len(embed(model, frames(), **SIZE, batch_size=4)) == 40
    assert most[0] <= 9, "images are kept after their batch"  # a batch, the next one, and the one being made


def test_ten_thousand_drawn_images_are_searched_in_bounded_memory(tmp_path):
    """Three lines; decoded, the images have 400 MB."""
    street = synthetic.sample_cameras(2, seed=0)
    for person in range(20):
        crop = Image.fromarray(synthetic.take(synthetic.Shot(person, person % 2, 0, box=1), street, 0.3, seed=0))
        crop.resize((80, 160)).save(tmp_path / "crop.bmp")
        for k in range(500):
            path = tmp_path / "my_folder" / f"{person:02}" / f"{k:03}.bmp"
            path.parent.mkdir(parents=True, exist_ok=True)
            os.link(tmp_path / "crop.bmp", path)
        (tmp_path / "crop.bmp").unlink()
    small = AlignedReID(torch.nn.Conv2d(3, 8, 8, 8), local_channels=4)  # the images count here, not the network

    def three_lines():
        index = Index.build(small, tmp_path / "my_folder", **SIZE)
        return index.search(tmp_path / "my_folder" / "07" / "003.bmp", top=500)[0]

    answer, _, memory = timing.measured(three_lines, 1, timing.owned)
    assert [match.name for match in answer.matches] == [f"07/{k:03}.bmp" for k in range(500)]
    assert memory < 80e6, f"{memory / 1e6:.0f} MB"


def test_what_is_no_image_is_refused_by_name(model, folder, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "it.jpg").write_bytes(b"not an image")
    good = np.zeros((8, 4, 3), np.uint8)
    truncated = Image.open(folder / "a" / "0.png")
    truncated.load = None  # fails in whatever way
    bad = {
        "empty contains no images": tmp_path / "empty",
        "no such image": tmp_path / "absent.jpg",
        r"it\.jpg: not an image that decodes": tmp_path / "bad",
        "there are no images": [],
        "image 1 is of type int": [good, 3],
        r"image 1 is float32 \(8, 4, 3\)": [good, good.astype(np.float32)],
        r"image 1 is uint8 \(8, 4\)": [good, good[..., 0]],
        r"image 0 is torch.uint8 \(8, 4, 3\)": [torch.from_numpy(good)],
        r"shape \(4,\)": np.zeros(4, np.uint8),
        "are of type int": 7,
        "image 0 does not decode": [truncated],
        r"image 1 has pixels of kind I;16, .*; convert it to RGB": [good, Image.fromarray(good[..., 0].astype("<u2"))],
        "a folder, not an image": [tmp_path],
    }
    for message, images in bad.items():
        with pytest.raises(InputError, match=message) as caught:
            embed(model, images, **SIZE)
        assert "\n" not in str(caught.value)
    for name in ("height", "width", "batch_size"):
        with pytest.raises(InputError, match=f"{name} is 0"):
            embed(model, good, **SIZE | {name: 0})


# search


def test_an_image_finds_itself_then_its_person(index, folder):
    for answer, person in zip(index.search(folder, top=3), "aaabbbccc", strict=True):
        assert answer.matches[0].name == answer.query and answer.matches[0].distance < 0.05
        assert [match.id for match in answer.matches] == [person] * 3
        assert answer.matches == sorted(answer.matches, key=lambda match: match.distance)
    assert "a/0.png" in str(answer) or "c/8.png" in str(answer)


@pytest.mark.parametrize("distance", ["global", "local", "global+local"])
def test_answers_are_those_of_the_distance_matrix(index, model, folder, distance):
    queries = embed(model, folder, **SIZE)
    matrix = evaluation.distance_matrix(distance, queries, index.features).numpy()
    for plain, again, row, reranked in zip(
        index.search(queries, 4, distance),
        index.search(queries, 4, distance, rerank=True, k1=3),
        matrix,
        evaluation.reranked_matrix(distance, queries, index.features, k1=3),
        strict=True,
    ):
        for answer, distances in ((plain, row), (again, reranked)):
            order = distances.argsort(kind="stable")[:4]
            assert [match.row for match in answer.matches] == order.tolist()
            np.testing.assert_allclose([match.distance for match in answer.matches], distances[order], rtol=1e-6)


def collection(values, ids=None):
    values = torch.as_tensor(values, dtype=torch.float32)[:, None]
    numbers = np.arange(len(values)) if ids is None else np.array(ids)
    local = torch.zeros(len(values), 1, 1)
    names = [str(k) for k in range(len(values))]
    return Features(values, local, numbers, 0 * numbers, numbers, names, cameras_known=False)


def test_blocks_do_not_change_answers_and_ties_keep_the_order(monkeypatch):
    gallery = collection(torch.randint(0, 6, (50,), generator=torch.Generator().manual_seed(0)))
    queries = collection([0.0, 2.0, 5.0])
    matrix = evaluation.distance_matrix("global", queries, gallery).numpy()
    for rows in (1, 7, 1000):
        monkeypatch.setattr("alignedreid_lib.search.nearest.ROWS", rows)
        found, distances = nearest(queries, gallery, "global", 20)
        np.testing.assert_array_equal(found, matrix.argsort(axis=1, kind="stable")[:, :20])
        np.testing.assert_array_equal(distances, np.take_along_axis(matrix, found, axis=1))
    assert nearest(queries, gallery, "global", 99)[0].shape == (3, 50)


def test_images_are_added_and_removed(model, folder, paths):
    index = Index.build(model, paths[:3], ids=[1, 1, 2], cameras=np.array([5, 6, 5]), **SIZE)
    index.add(paths[3:5], ids=[2, 3], cameras=[6, 6])
    whole = Index.build(model, paths[:5], ids=[1, 1, 2, 2, 3], cameras=[5, 6, 5, 6, 6], **SIZE)
    assert torch.equal(index.features.global_features, whole.features.global_features)
    assert (index.ids, index.cameras, index.features.names) == (whole.ids, whole.cameras, whole.features.names)
    np.testing.assert_array_equal(index.features.ids, [0, 0, 1, 1, 2])
    assert index.remove(ids=[2]) == 2 and index.remove(str(paths[0])) == 1
    kept = [1, 4]
    assert torch.equal(index.features.global_features, whole.features.global_features[kept]), "the others' features"
    assert torch.equal(index.features.local_features, whole.features.local_features[kept])
    assert index.features.names == [str(paths[k]) for k in kept]
    assert index.ids == [1, 3] and index.cameras == [6, 6] and len(index.features.global_features) == 2
    assert index.search(paths[1])[0].matches[0].camera == 6
    index.remove(ids=[1, 3])
    assert len(index) == 0
    with pytest.raises(InputError, match="the index is empty"):
        index.search(paths[0])
    index.add(paths[0], ids=[7], cameras=[1])
    assert index.search(paths[0])[0].matches[0].id == 7


def test_what_an_index_refuses(model, index, paths):
    for arguments, message in [
        ({"ids": [1]}, "1 ids for 2 images"),
        ({"cameras": "xy"}, "cameras for 2 images|2 cameras for 2"),
        ({"ids": [1, 2.5]}, "ids contain 2.5"),
        ({"names": ["a"]}, "1 names for 2 images"),
        ({"names": ["a", "a"]}, "'a' is in the index twice"),
    ]:
        with pytest.raises(InputError, match=message):
            Index.build(model, paths[:2], **SIZE, **arguments)
    some = Index.build(model, paths[:2], **SIZE)
    with pytest.raises(InputError, match="have no ids"):
        some.add(paths[2], ids=[1])
    with pytest.raises(InputError, match="is in the index twice"):
        some.add(paths[1])
    with pytest.raises(InputError, match="has the id '9'"):
        index.remove(ids=[9])
    with pytest.raises(InputError, match="needs to know who"):
        some.choose_threshold()
    for arguments, message in [({"top": 0}, "top is 0"), ({"distance": "rigid"}, "distance 'rigid'")]:
        with pytest.raises(InputError, match=message):
            some.search(paths[0], **arguments)
    with pytest.raises(InputError, match="0 searches have a match"):
        Index.build(model, paths[:1], ids=[1], **SIZE).choose_threshold()
    for rate in ("5%", 5, -0.1, True, float("nan")):
        with pytest.raises(InputError, match=r"false_alarm_rate is .*; give a share from 0 to 1"):
            index.choose_threshold(rate)
    with pytest.raises(InputError, match="model is 'resnet50'; give a network"):
        Index.build("resnet50", paths[:2])


# Same or not


def test_a_threshold_by_eye():
    #                     a    a    b    b     c
    people = collection([0.0, 1.0, 3.0, 5.0, 10.0], [0, 0, 1, 1, 2])
    found = nearest_distances(people)
    np.testing.assert_allclose(found.same, [1, 1, 2, 2], atol=1e-3)
    np.testing.assert_allclose(found.different, [3, 2, 2, 4, 5], atol=1e-3)
    chosen = Threshold.choose(found, 0.4, "global", 5, "five numbers")
    assert chosen.value == pytest.approx(2, abs=1e-3) and chosen.false_alarm_rate == 0.4 and chosen.found_rate == 1
    assert "five numbers" in str(chosen) and chosen.expected_rate(10) == pytest.approx(1 - 0.6**2)
    assert Threshold.choose(found, 0.3, "global", 5, "x").value == pytest.approx(1, abs=1e-3)
    with pytest.raises(InputError, match="no threshold has a false-alarm rate of at most 0"):
        Threshold.choose(type(found)(found.same + 9, found.different), 0, "global", 5, "x")
    one_camera = Features(**{**people.__dict__, "cameras_known": True})
    with pytest.raises(InputError, match="0 searches have a match"):
        nearest_distances(one_camera)


def test_strangers_get_the_answer_nobody(model, index, folder, paths):
    index = Index.build(model, folder, ids=[*"aaabbbccc"], **SIZE)
    chosen = index.choose_threshold(0.2, data="three colours")
    assert chosen is index.threshold and chosen.false_alarm_rate <= 0.2 and chosen.images == 9
    stranger = np.zeros((60, 30, 3), np.uint8)
    stranger[::2] = 255
    for rerank in (False, True):
        known, unknown = index.search([paths[4], stranger], rerank=rerank, k1=3)
        assert {match.id for match in known.matches} == {"b"} and not known.nobody
        assert unknown.nobody and "nobody" in str(unknown)
    assert len(index.search(stranger, everybody=True)[0].matches) == 9
    with pytest.raises(InputError, match="threshold of this index is for the distance global, not local"):
        index.search(stranger, distance="local")


# Files


def same(one, two):
    assert torch.equal(one.features.global_features, two.features.global_features)
    assert torch.equal(one.features.local_features, two.features.local_features)
    assert (one.features.names, one.ids, one.cameras) == (two.features.names, two.ids, two.cameras)
    assert one.threshold == two.threshold and one._about() == two._about()


def test_an_index_comes_back_and_changes_after(model, folder, paths, tmp_path):
    index = Index.build(model, folder, ids=[*"aaabbbccc"], cameras=range(9), **SIZE)
    index.choose_threshold(0.5)
    index.save(tmp_path / "people.index")
    again = Index.load(tmp_path / "people.index", model)
    same(index, again)
    assert index.search(paths) == again.search(paths)
    again.remove(ids=["a"])
    again.features.global_features[0] = 7  # a mapped page is copied, the file stays
    again.save(tmp_path / "people.index")  # over the file that it is mapped from
    assert len(Index.load(tmp_path / "people.index", model)) == 6 and len(again.search(paths[0], everybody=True)) == 1
    again.remove(ids=["b", "c"])
    again.save(tmp_path / "empty.index")
    assert len(Index.load(tmp_path / "empty.index", model)) == 0


def test_features_are_readable_as_safetensors(index, tmp_path):
    index.save(tmp_path / "it")
    data = (tmp_path / "it").read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    entry = header["global_features"]
    begin, end = entry["data_offsets"]
    values = np.frombuffer(data[8 + length :][begin:end], "<f4").reshape(entry["shape"])
    np.testing.assert_array_equal(values, index.features.global_features)
    assert all(isinstance(value, str) for value in header["__metadata__"].values()) and (8 + length) % 8 == 0


def test_other_networks_and_other_files_are_refused(model, index, tmp_path):
    path = tmp_path / "it"
    index.save(path)
    strided = network()
    strided.base.conv1.stride = (1, 1)  # the same weights, other features
    for other in (network(1), AlignedReID("resnet18.layer1", local_channels=8), strided):
        with pytest.raises(InputError, match="different weights or a different network"):
            Index.load(path, other)
    classifier = AlignedReID("resnet18.layer1", num_ids=3, local_channels=4)
    classifier.load_state_dict(model.state_dict(), strict=False)
    assert len(Index.load(path, classifier)) == 9, "features do not depend on the classifier"
    good = path.read_bytes()
    future = good.replace(b"alignedreid index 1", b"alignedreid index 2")
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    files = {
        "index of format 2": future,
        "damaged": good[:-1],
        "not an index": (tmp_path / "weights.pth").read_bytes(),
        "it: not an index": b"",
        "it: damaged": good[:5000] + bytes([good[5000] ^ 1]) + good[5001:],
    }
    for message, data in files.items():
        path.write_bytes(data)
        with pytest.raises(InputError, match=message):
            Index.load(path, model)
    with pytest.raises(InputError, match="no such index"):
        Index.load(tmp_path / "absent", model)
    with pytest.raises(InputError, match="not a file"):
        Index.load(tmp_path, model)
    with pytest.raises(InputError, match="cannot be written"):
        index.save(tmp_path / "absent" / "it")


def test_a_whole_file_with_a_wrong_content_is_refused(model, index, tmp_path):
    about = json.dumps({"fingerprint": "0" * 64})
    arrays = {"global_features": np.zeros((2, 3), np.float32), "texts": np.zeros(3, np.uint8)}
    storage.write_file(tmp_path / "it", about, arrays)
    with pytest.raises(InputError, match="its content is not that of an index"):
        Index.load(tmp_path / "it", model)
    index.save(tmp_path / "it")
    about, arrays = storage.read_file(tmp_path / "it")
    changed = [
        (about.replace("0.486", "0.5"), {}, "normalisation"),
        (about, {"global_features": arrays["global_features"][1:]}, "not that of an index"),
        (about, {"texts": arrays["texts"][1:]}, "not that of an index"),
        ("[]", {}, "not that of an index"),
    ]
    for text, other, message in changed:
        storage.write_file(tmp_path / "it", text, arrays | other)
        with pytest.raises(InputError, match=message):
            Index.load(tmp_path / "it", model)


def save_for_ever(path):
    """Save two indexes in turn until killed."""
    texts = storage.Texts([str(k) for k in range(2000)], None, None)
    about = storage.About("0" * 64, 1, 1, (0.0,), (1.0,), "float32")
    for k in range(1 << 30):
        values = torch.full((2000, 64), float(k % 2))
        numbers = np.zeros(2000, int)
        features = Features(values, torch.zeros(2000, 1, 1), numbers, numbers, numbers, texts.names)
        storage.write_index(path, about, texts, features)


def test_a_save_killed_at_any_moment_leaves_a_whole_index(tmp_path):
    path = tmp_path / "it"
    context = multiprocessing.get_context("fork")
    rng = np.random.default_rng(0)
    for _ in range(20):
        process = context.Process(target=save_for_ever, args=(path,))
        process.start()
        while not path.exists():
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.03))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        _, arrays = storage.read_file(path)
        values = arrays["global_features"]
        assert values.shape == (2000, 64) and (values == values[0, 0]).all()


def test_a_threshold_is_used_on_other_data_with_as_many_images(model, tiny_data, monkeypatch):
    folder = tiny_data / "tiny"
    monkeypatch.setattr(transfer, "SETS", {"here": folder, "there": folder, "absent": tiny_data / "absent"})
    monkeypatch.setattr(transfer, "RATE", 0.5)
    monkeypatch.setattr(transfer, "IMAGES", 7)
    config = TrainConfig(height=32, width=16, total_epochs=1, decay_at_epoch=1)
    here, there = transfer.rows(model, config, "a network", "here")
    assert {**here, "used_on": "there"} == there, "the same data have the same rates"
    assert here["false_alarm_rate"] <= 0.5 and here["found_rate"] == here["own_found_rate"]
    dataset = transfer.open_dataset(folder, "test")
    drawn = transfer.draw(dataset, 0)
    assert (drawn.marks == 1).sum() == 7 and (drawn.marks == 0).sum() == 3


@pytest.fixture
def finished(tiny_data, tmp_path, monkeypatch):
    """A finished training of one epoch, and the book's model that it is compared with."""
    config = TrainConfig(
        data_root=str(tiny_data), dataset="tiny", height=32, width=16, backbone="resnet18.layer1", weights=None,
        ids_per_batch=3, images_per_id=2, total_epochs=1, decay_at_epoch=1, device="cpu", precision="float32",
    )  # fmt: skip
    found = train(config, tmp_path / "run")
    sets = {"drawn people": tiny_data / "tiny", "colours": tiny_data / "tiny"}
    for name, value in {"SETS": sets, "RATE": 0.5, "IMAGES": 7}.items():
        monkeypatch.setattr(transfer, name, value)
    monkeypatch.setattr(book, "model", lambda: book.BookModel(network(), found))
    monkeypatch.setattr(book, "CONFIG", config)
    monkeypatch.setattr(book, "RESULTS", str(tmp_path))
    return config, tmp_path


def test_the_rates_of_a_finished_run_are_added(finished, monkeypatch):
    config, folder = finished
    transfer.main(str(folder / "run"))
    first = runs.read_json(folder / "threshold_transfer.json")
    assert [(row["network"], row["chosen_on"], row["used_on"]) for row in first["rows"]] == [
        *[("the book's model", "drawn people", place) for place in ("drawn people", "colours")],
        *[("resnet18.layer1, trained on drawn people", "drawn people", place) for place in ("drawn people", "colours")],
    ]
    trained, opened, _ = transfer.open_run(str(folder / "run"))
    assert opened == config and not trained.training
    weights = torch.load(folder / "run" / "weights.pth", weights_only=True)
    assert torch.equal(trained.base.conv1.weight, weights["base.conv1.weight"]), "the run's weights"
    assert first["rows"][2]["threshold"] > 0 and first["commit"]
    unit = dataclasses.replace(config, normalize=True, margin=0.3)
    found, plain = (transfer.rows(trained, how, "it", "colours")[0]["threshold"] for how in (unit, config))
    assert 0 < found <= 2 and found != plain, "distances of features of unit length, as in the run's own test"


def test_a_folder_that_is_no_finished_run_is_refused_before_anything_is_measured(finished, tmp_path, monkeypatch):
    _, folder = finished
    monkeypatch.setattr(book, "model", lambda: pytest.fail("it measures"))
    with pytest.raises(InputError, match="absent: not a finished run of one model; give"):
        transfer.main(str(folder / "absent"))
    monkeypatch.setattr(transfer, "SETS", {"drawn people": tmp_path / "elsewhere"})
    with pytest.raises(InputError, match="tiny; a threshold is chosen on the test set of one of drawn people, and it"):
        transfer.main(str(folder / "run"))
    assert not (folder / "threshold_transfer.json").exists()
