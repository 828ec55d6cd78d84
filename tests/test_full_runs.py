"""The data of a full run: made where it is not there, of the size it has, and refused before the training."""

import ast
import dataclasses
import io
import logging
import shutil
import zipfile
from pathlib import Path

import jupytext
import numpy as np
import pytest
import torch
from PIL import Image

from alignedreid_lib import book, datasets, evaluation, losses
from alignedreid_lib.batches import images
from alignedreid_lib.batches.sampling import IdentitySampler
from alignedreid_lib.datasets import for_full_run
from alignedreid_lib.errors import InputError
from alignedreid_lib.evaluation import full_run
from alignedreid_lib.model import AlignedReID
from alignedreid_lib.training import TrainConfig, train

NAME = "Market-1501-v15.09.15.zip"


def jpeg(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 16, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def make_archive(path: Path, num_train: int, num_test: int = 2, cameras: int = 2) -> Path:
    """An archive in Market-1501's form."""
    with zipfile.ZipFile(path, "w") as archive:
        number = 0
        for person in range(1, num_train + num_test + 1):
            tested = person > num_train
            for folder in ("query", "bounding_box_test", "gt_bbox") if tested else ("bounding_box_train",):
                for camera in range(1, (2 if tested else cameras) + 1):
                    number += 1
                    archive.writestr(f"market/{folder}/{person:04d}_c{camera}s1_{number:06d}_01.jpg", jpeg(number))
    return path


def make_people(folder: Path, count: int, pictures: int = 3) -> Path:
    """A folder for each person."""
    for person in range(count):
        (folder / f"p{person:02d}").mkdir(parents=True)
        for k in range(pictures):
            (folder / f"p{person:02d}" / f"{k}.jpg").write_bytes(jpeg(100 * person + k))
    return folder


def config(root: Path, **settings) -> TrainConfig:
    return TrainConfig(**{"data_root": str(root), "ids_per_batch": 2, "images_per_id": 2} | settings)


@pytest.mark.parametrize(("num_train", "cameras"), [(4, 2), (102, 1)], ids=["few people", "few who can be queries"])
def test_a_small_archive_is_trained_on_without_a_validation_split(num_train, cameras, tmp_path, caplog):
    archive = make_archive(tmp_path / NAME, num_train, cameras=cameras)
    for _ in range(2):  # asked again, it is found
        assert book.prepare_data(config(tmp_path / "data"), str(archive)) == ("market1501",)
    assert caplog.messages == ["market1501: too few people to set some aside for validation; all are trained on"]
    made = tmp_path / "data" / "market1501"
    assert len(set(datasets.open_dataset(made, "train").ids)) == num_train
    assert len(datasets.open_dataset(made, "val")) == 0
    with pytest.raises(
        InputError, match="has num_val_ids=0, not 2; move it away to make it again, or give a different"
    ):
        book.prepare_data(config(tmp_path / "data"), str(archive), num_val_ids=2)


def test_a_release_has_its_hundred_validation_people(tmp_path, caplog):
    book.prepare_data(config(tmp_path / "data"), str(make_archive(tmp_path / NAME, 103)))
    assert len(set(datasets.open_dataset(tmp_path / "data" / "market1501", "val").ids)) == 100 and not caplog.messages


def test_validation_people_can_be_asked_for(tmp_path):
    archive, wanted = make_archive(tmp_path / NAME, 5), config(tmp_path / "data", train_part="train", validate_every=1)
    with pytest.raises(InputError, match="num_val_ids=100 leaves nobody to train on: the set has 5 ids") as caught:
        book.prepare_data(wanted, str(archive))
    assert type(caught.value) is InputError, "a notebook tells users of an InputError without a traceback"
    assert not (tmp_path / "data").exists()
    book.prepare_data(wanted, str(archive), num_val_ids=2)
    assert len(set(datasets.open_dataset(wanted.folder, "train").ids)) == 3
    assert full_run.validation(wanted)


def test_a_folder_is_split_as_asked(tmp_path):
    people, own = make_people(tmp_path / "p", 6), config(tmp_path / "data", dataset="folder")
    for _ in range(2):
        assert book.prepare_data(own, str(people), pattern=r"(?P<person>p\d+)", test_share=1 / 3) == ("folder",)
    assert len(set(datasets.open_dataset(own.folder, "trainval").ids)) == 4
    with pytest.raises(InputError, match=r"has test_share=0.333.*, not 0.5; move it away"):
        book.prepare_data(own, str(people), test_share=0.5)
    make_people(people / "p05" / "more", 1)
    with pytest.raises(InputError, match="made of other images than are there now"):
        book.prepare_data(own, str(people))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"test_sets": "market1501"}, f"{NAME} does not exist"),  # one name, not its letters
        ({"test_sets": ["folder", "nonsense"]}, "no dataset 'nonsense'"),
        ({"test_sets": "combined"}, "no dataset 'combined'"),
        *(({"test_sets": name}, f"{name} is not one dataset .*name cuhk03/det") for name in ("cuhk03", "cuhk03/all")),
        (
            {"test_share": 0.0},
            "has no people to test on; name others in test_sets, or delete this folder and prepare it",
        ),
        ({"archive": ""}, "folder is not there; prepare it, or give in `archive`"),
        ({"archive": "x" * 5000}, "File name too long"),
        ({"num_val_ids": 3}, "num_val_ids=3 leaves nobody to train on"),
    ],
)
def test_what_cannot_be_tested_is_refused_before_the_training(given, message, tmp_path):
    given = {"archive": str(make_people(tmp_path / "p", 6))} | given
    with pytest.raises(InputError, match=message):
        book.prepare_data(config(tmp_path / "data", dataset="folder"), **given)


def test_settings_of_a_folder_are_refused_for_a_release(tmp_path):
    archive = str(make_archive(tmp_path / NAME, 3))
    with pytest.raises(InputError, match="pattern is for the dataset folder; leave it out with market1501"):
        book.prepare_data(config(tmp_path / "data"), archive, pattern="x")
    with pytest.raises(InputError, match="folder is not there; train on it, or prepare it before you test"):
        book.prepare_data(config(tmp_path / "data"), archive, test_sets=["market1501", "folder"])


@pytest.mark.parametrize("given", [False, True], ids=["without its archive", "with its archive"])
@pytest.mark.parametrize(
    ("data_root", "name"),
    [("data", "mine"), ("data", "{root}/data/market1501"), ("", "data/market1501")],
    ids=["renamed", "a path from the root", "a path from a folder above"],
)
def test_a_dataset_that_exists_opens_under_every_name(data_root, name, given, tmp_path):
    archive = make_archive(tmp_path / NAME, 3)
    made = datasets.prepare("market1501", archive, tmp_path / "data", num_val_ids=1)
    if name == "mine":
        made.rename(made.with_name(name))
    name = name.format(root=tmp_path)
    assert datasets.provide(tmp_path / data_root, name, archive=str(archive) if given else "") == (name,)


def test_a_folder_that_exists_is_not_compared_without_its_images(tmp_path, monkeypatch):
    people, own = make_people(tmp_path / "p", 4), config(tmp_path / "data", dataset="folder")
    book.prepare_data(own, str(people))
    monkeypatch.setattr(for_full_run, "prepare", None)
    assert book.prepare_data(own) == ("folder",)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"dataset": 5}, "dataset is 5; it has to be a valid string"),
        ({"dataset": None}, "dataset is None; it has to be a valid string"),
        ({"train_part": "test"}, "train_part is 'test'; it has to be 'trainval' or 'train'"),
        ({"archive": 5}, "5 is of type int, and a path is needed"),
        ({"archive": None}, "None is of type NoneType, and a path is needed"),
    ],
)
def test_settings_of_a_wrong_type_are_refused(given, message, tmp_path):
    datasets.prepare("market1501", make_archive(tmp_path / NAME, 3), tmp_path, num_val_ids=1)
    with pytest.raises(InputError, match=message):
        datasets.provide(**{"data_root": tmp_path, "dataset": "market1501"} | given)


def test_the_drawn_people_have_no_folder_of_their_own():
    own = dataclasses.replace(book.CONFIG, dataset="folder")
    with pytest.raises(InputError, match="folder is not there; prepare it, or give in `archive`"):
        book.prepare_data(own)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 0, 1, 1, 2, 2], "ids_per_batch is 4, but the data has 3 identities; lower ids_per_batch to 3 or less"),
        ([5, 5], "the data has 1 identity, and a batch needs 2; add people"),
        ([0, 0, 1, 2, 3], "images_per_id is 3, but no identity has more than 2 images; lower images_per_id to 2"),
        ([0, 1, 2, 3], "no identity of the data has more than 1 image, and a triplet needs 2; add images"),
    ],
)
def test_too_small_a_set_is_refused_with_advice_that_can_be_followed(labels, message):
    with pytest.raises(InputError, match=message):
        IdentitySampler(labels, 4, 3, seed=0)


def test_nobody_to_train_on_is_said(tmp_path):
    own = config(tmp_path / "data", dataset="folder")
    book.prepare_data(own, str(make_people(tmp_path / "p", 2)), test_share=1.0)
    with pytest.raises(InputError, match="part trainval has no people to train on; add some"):
        train(own, tmp_path / "run")


@pytest.fixture(autouse=True)
def log_is_heard(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "alignedreid_lib.datasets")


@pytest.fixture
def tested(tiny_data, tmp_path):
    """A config whose test set has a multi-query image for each of its three people, and two networks."""
    shutil.copytree(tiny_data / "tiny", tmp_path / "tiny")
    parts = datasets.Partitions.load(tmp_path / "tiny" / "partitions.pkl")
    dataclasses.replace(parts, test_marks=[0, 1, 2, 1] * 3).save(tmp_path / "tiny" / "partitions.pkl")
    size = {"height": 48, "width": 24, "precision": "bfloat16", "device": "cpu"}
    own = config(tmp_path, dataset="tiny", backbone="shufflenet_v2_x0_5", workers=3, memory_limit=10**6, **size)
    return own, {name: AlignedReID(own.backbone, local_channels=4) for name in ("one", "two")}


def test_a_test_decodes_once_with_the_runs_workers_and_only_what_it_ranks(tested, monkeypatch):
    own, networks = tested
    stores, decoded, seen = [], [], []
    made, decode = images.ImageStore.__init__, images.decode

    def remember(store, paths, size=None, limit_bytes=None, workers=None):
        stores.append((size, limit_bytes, workers))
        made(store, paths, size, limit_bytes, workers)

    monkeypatch.setattr(images.ImageStore, "__init__", remember)
    monkeypatch.setattr(images, "decode", lambda path: decoded.append(path.name) or decode(path))
    networks["one"].base.register_forward_hook(lambda module, given, out: seen.append((given[0].shape, out.dtype)))
    table = full_run.test(networks, own, full_run.Plan("run"), ["tiny"])
    marks = datasets.open_dataset(own.folder, "test").marks
    assert stores == [((48, 24), 10**6, 3)] and len(decoded) == (marks != 2).sum() == 9
    assert [row.name for row in table.rows] == ["one", "two"] and table.rows[0].num_queries == 3
    assert seen == [((9, 3, 48, 24), torch.bfloat16)]
    for name, row in zip(networks, table.rows, strict=True):
        assert full_run.score(networks[name], own, "tiny").named(name).rows == [row]
    assert stores[1:] == [((48, 24), 0, 3)] * 2, "one network reads each image once, so none is kept"


def test_multi_query_has_rows_of_its_own(tested):
    own, networks = tested
    plan = full_run.Plan("run", test_distances=("global", "local"), test_rerank=True, test_multi_query="average")
    table = full_run.test({"one": networks["one"]}, own, plan, ["tiny"])
    assert [row.name for row in table.rows] == ["one"] * 4 + ["multi-query, one"] * 4
    features = full_run.embed(networks["one"], datasets.open_dataset(own.folder, "test"), own)
    for way, rows in ((None, table.rows[:4]), ("average", table.rows[4:])):
        name = rows[0].name
        assert rows == evaluation.evaluate(features, ("global", "local"), True, way, name=name).rows


def test_multi_query_is_refused_before_the_training_where_it_cannot_be(tested):
    own, _ = tested
    plan = full_run.Plan("run", test_multi_query="max")
    assert book.prepare_data(own, **plan.data) == ("tiny",)
    parts = datasets.Partitions.load(own.folder / "partitions.pkl")
    dataclasses.replace(parts, test_marks=[0, 1, 1, 1] * 3).save(own.folder / "partitions.pkl")
    with pytest.raises(InputError, match=r"tiny has no multi-query images: .*; leave test_multi_query empty"):
        book.prepare_data(own, **plan.data)


def test_a_test_ranks_on_the_runs_device(tested, monkeypatch):
    own, networks = tested
    asked, evaluate = [], full_run.evaluate
    monkeypatch.setattr(
        full_run, "evaluate", lambda *args, **how: asked.append(how["device"]) or evaluate(*args, **how)
    )
    full_run.score(networks["one"], own, "tiny")
    everyone = datasets.open_dataset(own.folder, "test")
    full_run.Validation(own, everyone)(networks["one"])
    assert asked == ["cpu", "cpu"]


def test_validation_uses_the_runs_workers(tested, monkeypatch):
    own, networks = tested
    found, extract = [], full_run.extract
    monkeypatch.setattr(full_run, "extract", lambda *args, **how: found.append(how) or extract(*args, **how))
    validation = full_run.Validation(own, datasets.open_dataset(own.folder, "test"))
    validation(networks["one"])
    store = found[0]["store"]
    assert found[0]["workers"] == 3 and store is validation.store and store.limit_bytes == 10**6


def cells(name: str) -> str:
    """The code of a chapter."""
    notebook = jupytext.read(Path(__file__).parents[1] / "notebooks" / f"{name}.py", fmt="py:percent")
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")


def test_chapter_06_draws_with_the_runs_size_and_precision(tested):
    """The cell that draws the batch's pairs, before and after training, embeds them as the run does."""
    own, networks = tested
    (function,) = (
        node for node in ast.parse(cells("06_training")).body if getattr(node, "name", "") == "pair_distances"
    )
    batch = datasets.open_dataset(own.folder, "test")[np.array([0, 1, 4, 5])]
    names = {"torch": torch, "losses": losses, "full_run": full_run, "config": own, "batch_set": batch}
    exec(compile(ast.Module([function], []), "06", "exec"), names)
    seen = []
    networks["one"].base.register_forward_hook(lambda module, given, out: seen.append((given[0].shape, out.dtype)))
    distances, same = names["pair_distances"](networks["one"])
    assert seen == [((4, 3, 48, 24), torch.bfloat16)]
    assert distances.shape == (6,) and same.tolist() == [True, False, False, False, False, True]
