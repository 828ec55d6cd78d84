"""What real folders, tables, files and cells hold that nobody planned; see also test_sightings and test_sources."""

import io
import json
import math
import shutil
import warnings
import zipfile
from pathlib import Path

import presets
import pytest
import torch
import yaml
from PIL import Image

from alignedreid_lib import book, datasets, devices, runs
from alignedreid_lib.batches import images
from alignedreid_lib.datasets import Partitions
from alignedreid_lib.errors import InputError
from alignedreid_lib.model import AlignedReID, load_weights
from alignedreid_lib.training import TrainConfig

ROOT = Path(__file__).parents[1]


def jpeg(seed: int = 0, size: tuple[int, int] = (8, 16)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (seed % 256, seed // 256, 0)).save(buffer, "JPEG")
    return buffer.getvalue()


def people(folder, names=("alice", "bob", "carol", "dave"), count=3):
    for number, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for k in range(count):
            (folder / name / f"{k}.jpg").write_bytes(jpeg(50 * number + k))
    return folder


# A prepared dataset of which something is gone.


@pytest.mark.parametrize("gone", ["a picture", "all pictures", "partitions.pkl"])
def test_what_is_gone_comes_back_as_the_message_says(gone, tmp_path):
    source = people(tmp_path / "p")
    folder = datasets.prepare("folder", source, tmp_path)
    if gone == "all pictures":
        shutil.rmtree(folder / "images")
    elif gone == "a picture":
        datasets.open_dataset(folder, "test").paths[0].unlink()
    else:
        (folder / gone).unlink()
    assert datasets.prepare("folder", source, tmp_path) == folder, "it is found, and nothing is made"
    with pytest.raises(InputError, match=f"delete {folder} and prepare it again"):
        datasets.open_dataset(folder, "test")
    shutil.rmtree(folder)
    assert len(datasets.open_dataset(datasets.prepare("folder", source, tmp_path), "test"))


def test_a_picture_that_a_list_names_is_not_to_be_removed(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"")
    with pytest.raises(InputError, match=r"a\.jpg: not an image that decodes .*put a whole copy there$"):
        images.decode(tmp_path / "a.jpg")


@pytest.mark.parametrize("content", ["", "{", "[]", "[" * 100_000])
def test_whether_cameras_are_known_is_not_guessed(content, tmp_path):
    folder = datasets.prepare("folder", people(tmp_path / "p"), tmp_path)
    (folder / "prepared.json").write_text(content)
    with pytest.raises(InputError, match=r"prepared\.json cannot be read; restore it, or delete"):
        datasets.open_dataset(folder, "test")


def test_labels_count_from_0():
    with pytest.raises(InputError, match="label below 0"):
        Partitions(trainval_im_names=["00000001_0001_00000000.jpg"], trainval_ids2labels={1: -1})


# Folders, tables and photos of one's own.


@pytest.mark.parametrize("depth", ["", "mine/"])
@pytest.mark.parametrize(
    "parts", [("train", "val"), ("query", "gallery", "train_all"), ("bounding_box_train", "query")]
)
def test_parts_of_a_dataset_are_no_people(parts, depth, tmp_path):
    for part in parts:
        people(tmp_path / "set" / depth / part)
    with pytest.raises(InputError, match=f"set: the folders .*{parts[1]}.* are parts of a dataset, not people"):
        datasets.prepare("folder", tmp_path / "set", tmp_path)
    found = datasets.prepare("folder", tmp_path / "set" / depth / parts[0], tmp_path)
    assert json.loads((found / "people.json").read_text())["people"] == ["alice", "bob", "carol", "dave"]


def test_folders_inside_of_people_s_folders_are_spoken_of(tmp_path):
    people(tmp_path / "p" / "alice", ("cam1", "cam2"))
    people(tmp_path / "p" / "bob", ("cam1", "cam2"))
    with pytest.warns(UserWarning, match=r"12 images in folders inside .*\(first: alice/cam1/0\.jpg\)"):
        datasets.prepare("folder", tmp_path / "p", tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        datasets.prepare("folder", tmp_path / "p", tmp_path / "b", pattern="(?P<person>.+)/cam(?P<camera>.+)/")


def table(folder, rows):
    people(folder, ("x",), 6)
    (folder / "t.csv").write_text("path,person,camera\n" + "".join(f"x/{k}.jpg,{row}\n" for k, row in enumerate(rows)))
    return folder / "t.csv"


@pytest.mark.parametrize("pair", [("Ann", "ann"), ("7", "007"), ("7", "7.0"), ("cam1", "cam01")])
@pytest.mark.parametrize("column", ["people", "cameras"])
def test_names_that_may_be_one_are_spoken_of(pair, column, tmp_path):
    rows = [f"{pair[k % 2]},1" if column == "people" else f"p{k // 2},{pair[k % 2]}" for k in range(6)]
    with pytest.warns(UserWarning, match=f"are taken for two {column}"):
        datasets.prepare("folder", table(tmp_path / "p", rows), tmp_path, test_share=0)


@pytest.mark.parametrize("missing", ["#N/A", "nan", "<NA>", "#REF!"])
@pytest.mark.parametrize("row", ["{},1", "bob,{}"])
def test_what_is_missing_is_nobody_s_name(missing, row, tmp_path):
    given = table(tmp_path / "p", ["ann,1", "ann,2", row.format(missing)])
    with pytest.raises(InputError, match=f"line 4 has {missing}, as programs write what is missing"):
        datasets.prepare("folder", given, tmp_path)


@pytest.mark.parametrize("bound", ["MAX_BYTES", "MAX_PIXELS"])
def test_a_large_photo_is_to_be_made_smaller(bound, tmp_path, monkeypatch):
    monkeypatch.setattr(f"alignedreid_lib.datasets.jpegs.{bound}", 100)
    with pytest.raises(InputError, match=r"0\.jpg .*; make it smaller, or take it out"):
        datasets.prepare("folder", people(tmp_path / "p"), tmp_path)


# Archives by other hands.


def market(path, train=(1, 2), test=(3, 4), cameras=(1, 2)):
    with zipfile.ZipFile(path, "w") as archive:
        for folder, ids in (("bounding_box_train", train), ("query", test), ("bounding_box_test", test)):
            for person in ids:
                for camera in cameras:
                    archive.writestr(f"M/{folder}/{person:04d}_c{camera}s1_000001_00.jpg", jpeg(person))
    return path


@pytest.mark.parametrize("given", [{"train": (1, 123456789)}, {"cameras": (1, 10001)}])
def test_numbers_without_room_are_named_with_their_file(given, tmp_path):
    with pytest.raises(InputError, match=r"m\.zip: M/bounding_box_train/.*jpg has an id above .*number them again"):
        datasets.prepare("market1501", market(tmp_path / "m.zip", **given), tmp_path, num_val_ids=0)


@pytest.mark.parametrize("beside", [{}, {"M/bounding_box_train/readme.txt": b"x"}])
def test_pictures_a_folder_deeper_are_spoken_of(beside, tmp_path):
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        for name, content in beside.items():
            archive.writestr(name, content)
        for folder in ("bounding_box_train", "query", "bounding_box_test"):
            archive.writestr(f"M/{folder}/0001/0001_c1s1_000001_00.jpg", jpeg())
    with pytest.raises(InputError, match=r"of bounding_box_train/ are in folders inside of it \(first: M/.*move them"):
        datasets.prepare("market1501", tmp_path / "m.zip", tmp_path, num_val_ids=0)


def test_files_that_are_left_out_of_an_archive_are_counted(tmp_path):
    path = market(tmp_path / "m.zip")
    with zipfile.ZipFile(path, "a") as archive:
        for name in ("0001_c1s1_000001_00.jpg.bak", ".hidden.jpg", "._0001_c1s1_000001_00.jpg", "Thumbs.db"):
            archive.writestr(f"M/query/{name}", b"x")
    with pytest.warns(UserWarning, match=r"2 files in .*query.* passed over, .*first: M/query/\.hidden\.jpg"):
        datasets.prepare("market1501", path, tmp_path, num_val_ids=0)


def test_people_who_are_trained_on_and_tested_are_spoken_of(tmp_path):
    with pytest.warns(UserWarning, match=r"1 people are trained on and tested \(first: 2\)"):
        datasets.prepare("market1501", market(tmp_path / "m.zip", test=(2, 3)), tmp_path, num_val_ids=0)


def test_a_zip_in_a_way_that_python_does_not_read(tmp_path):
    path = market(tmp_path / "m.zip")
    data = path.read_bytes()
    for header, place in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        pieces = data.split(header)  # 9 is Deflate64
        data = header.join(pieces[:1] + [p[: place - 4] + b"\x09\0" + p[place - 2 :] for p in pieces[1:]])
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"packed in a way that Python does not read .*python -m zipfile -c"):
        datasets.prepare("market1501", path, tmp_path, num_val_ids=0)


# A parameters cell after an edit of its first lines.

CELL = "# Parameters: the data\nseed = 1\nbase_lr = 3e-4\nheight = 64"


@pytest.mark.parametrize(
    "edited",
    [
        "%%time\n" + CELL,
        "%matplotlib inline\n" + CELL,
        "# my third try\n" + CELL,
        '"""What I want."""\n' + CELL,
        "import os\n" + CELL,
        CELL.partition("\n")[2],
        CELL + "\n!nvidia-smi",
    ],
)
def test_an_edited_parameters_cell_counts(edited):
    edited = edited.replace("seed = 1", "seed = 2")
    space = {"In": ["", CELL, "x = 1\nseed = 7", edited, "plot(seed=3, base_lr=4)"]}
    assert runs.read_parameters(TrainConfig, space).seed == 2
    space["In"].append("# Parameters\nseed = 5")
    assert runs.read_parameters(TrainConfig, space).seed == 5, "papermill's comes after it"


# Presets as people write them.


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("1e-3", 1e-3), ("1E3", 1e3), (".5", 0.5), ("5.", 5.0), ("-1.5e+2", -150.0), (".inf", math.inf)),
        *(("010", 10), ("+5", 5), ("0", 0), ("None", None), ("~", None), ("yes", True), ("False", False)),
        *(("12:30", "12:30"), ("2026-10-11", "2026-10-11"), ("0x10", "0x10"), ("1_000", "1_000"), ("'3'", "3")),
        *(("1e", "1e"), ("[1, 2.5, a]", [1, 2.5, "a"]), ("1.2.3", "1.2.3"), ("-", [None])),
    ],
)
def test_yaml_means_what_it_looks_like(text, value):
    found = yaml.load(f"a:\n  {text}" if text == "-" else f"a: {text}", presets.PlainLoader)["a"]
    assert found == value and type(found) is type(value)


@pytest.fixture
def project(tmp_path):
    for folder in ("notebooks/presets", "alignedreid_lib", "tests", "data/raw"):
        (tmp_path / folder).mkdir(parents=True)
    for suffix in ("py", "ipynb"):
        shutil.copy(ROOT / "notebooks" / f"06_training.{suffix}", tmp_path / "notebooks")
    (tmp_path / "notebooks/presets/mine.yaml").write_text("notebook: 06_training\nparameters:\n  seed: 3\n")
    return tmp_path


def test_a_setting_given_twice_is_refused(project):
    path = project / "notebooks/presets/mine.yaml"
    path.write_text(path.read_text() + "  seed: 4\n")
    with pytest.raises(ValueError, match=r"presets/mine\.yaml: cannot be read \(seed is given twice"):
        presets.read_preset(project, "mine")


@pytest.mark.parametrize("line", ["seed = = 1", "seed = f()", "%%time"])
def test_a_damaged_parameters_cell_is_named(line, project):
    path = project / "notebooks/06_training.ipynb"
    path.write_text(path.read_text().replace("seed = 1\\n", f"{line}\\n"))
    with pytest.raises(ValueError, match=r"^notebooks/06_training\.ipynb: .*parameters cell"):
        presets.read_preset(project, "mine")


@pytest.mark.parametrize(
    "name",
    [
        *("alignedreid_lib", "tests/x", ".git/x", "notebooks/x", "data", "data/raw", "runs", "."),
        *("site", "build/x", "runs/book", "runs/book/model", "data/synthetic/x"),
    ],
)
def test_a_run_does_not_go_among_other_things(name, project):
    with pytest.raises(ValueError, match="which contains other things; name a new folder"):
        presets.run_folder(project, name)


def test_nobody_s_home_folder_is_not_made(project):
    for call in (runs.resolve, lambda name: presets.run_folder(project, name)):
        with pytest.raises(ValueError, match="nobody of that name has a home folder"):
            call("~nobody-of-this-name/x")
    assert not list(project.glob("~*"))


def test_a_run_in_the_home_folder_is_one_folder(project, monkeypatch):
    monkeypatch.setenv("HOME", str(project / "home"))
    monkeypatch.chdir(project)
    folder = project / "home" / "a"
    assert presets.run_folder(project, "~/a") == (folder, [folder, folder.parent])
    assert presets.run_folder(project, "~/a") == (runs.resolve("~/a"), [])


# Weights of other toolboxes, devices and sizes.


@pytest.fixture(scope="module")
def network():
    return AlignedReID("shufflenet_v2_x0_5")


def backbone(network, prefix="", change=lambda tensor: tensor):
    own = {name.removeprefix("base."): tensor for name, tensor in network.state_dict().items() if "base." in name}
    return {f"{prefix}{name}": change(tensor) for name, tensor in own.items()}


@pytest.mark.parametrize("key", [None, "model", "state_dict", "model_state_dict", "net"])
@pytest.mark.parametrize("prefix", ["", "backbone.", "model.", "net.encoder.", "module.encoder_q."])
def test_weights_as_other_toolboxes_name_them(key, prefix, network, tmp_path):
    content = backbone(network, prefix, lambda tensor: tensor + 1) | {"heads.bnneck.weight": torch.zeros(3)}
    torch.save({key: content, "epoch": 3} if key else content, tmp_path / "w.pth")
    other = AlignedReID("shufflenet_v2_x0_5")
    report = load_weights(other, tmp_path / "w.pth")
    assert not any("base." in name for name in report.missing) and len(report.unexpected) == 1
    assert all(torch.equal(a, b + 1) for a, b in zip(other.base.parameters(), network.base.parameters(), strict=True))


def test_two_backbones_in_one_file_are_not_chosen_from(network, tmp_path):
    torch.save(backbone(network, "left.") | backbone(network, "right."), tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"several networks in it fit, left\., right\.; give a file with one"):
        load_weights(network, tmp_path / "w.pth")


@pytest.mark.parametrize("change", [lambda tensor: tensor / 0, lambda tensor: tensor.to("meta")])
def test_weights_that_are_no_numbers(change, network, tmp_path):
    torch.save(backbone(network, change=change), tmp_path / "w.pth")
    with pytest.raises(InputError, match="not finite, or none"):
        load_weights(network, tmp_path / "w.pth")


@pytest.mark.parametrize("name", ["meta", "hpu", "privateuseone", None, 3.5, "gpu", ""])
def test_devices_that_compute_nothing_here(name):
    with pytest.raises(InputError, match="cannot be used here"):
        devices.choose_device(name)


@pytest.mark.parametrize("name", ["alexnet", "squeezenet1_1", "convnext_tiny"])
def test_pictures_too_small_for_a_backbone(name):
    with pytest.raises(InputError, match="nothing is left of images of 16 x 8"):
        AlignedReID(name).eval()(torch.zeros(1, 3, 16, 8))


def test_one_camera_is_said_before_the_training(tmp_path):
    path = market(tmp_path / "m.zip", cameras=(1,))
    config = TrainConfig(data_root=str(tmp_path), dataset="market1501")
    with pytest.raises(InputError, match="no test person was seen by two cameras"):
        book.prepare_data(config, str(path), num_val_ids=0)
