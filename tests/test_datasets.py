"""Preparing datasets: equal to the original's transforms, all or nothing, and clear about what is wrong."""

import errno
import gzip
import importlib
import io
import json
import logging
import os
import pickle
import random
import shutil
import signal
import stat
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from alignedreid_lib import book
from alignedreid_lib.datasets import (
    Partitions,
    combine,
    cuhk03,
    cuhk03_split,
    for_full_run,
    jpegs,
    market_duke,
    open_dataset,
    prepare,
    prepared_folder,
)
from alignedreid_lib.datasets.partitions import format_name, make_partitions
from alignedreid_lib.datasets.pickles import save_pickle
from alignedreid_lib.datasets.zip_reading import DeflatedFile
from alignedreid_lib.errors import InputError
from alignedreid_lib.runs import lock
from alignedreid_lib.training import TrainConfig

RECORDED = json.loads(gzip.decompress((Path(__file__).parent / "data" / "transforms.json.gz").read_bytes()))
TREES = RECORDED["raw_trees"]
MARKET_FOLDERS = ("bounding_box_train", "bounding_box_test", "query", "gt_bbox")


def encode(picture: np.ndarray, kind: str = "JPEG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, kind)
    return file.getvalue()


JPEG = encode(np.random.default_rng(0).integers(0, 256, (32, 16, 3), dtype=np.uint8))


def signed(text: str) -> bytes:
    """A JPEG that carries a text: a comment segment after the start marker."""
    return JPEG[:2] + b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text.encode() + JPEG[2:]


def write_zip(path: Path, files: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def tree_files(name: str) -> dict[str, bytes]:
    """A recorded raw release, each picture signed with its own path."""
    files = {}
    for folder, names in TREES[name]["raw"].items():
        files |= {f"release/{folder}/{file}": signed(f"{folder}/{file}") for file in names}
        files[f"release/{folder}/Thumbs.db"] = b"no picture"
    return files


def small_market() -> dict[str, bytes]:
    files = {}
    for person in range(1, 7):
        train = person <= 4
        for camera in (1, 2):
            for folder in ["bounding_box_train"] if train else ["bounding_box_test", "query", "gt_bbox"]:
                files[f"{folder}/{person:04d}_c{camera}s1_000001_00.jpg"] = JPEG
    return files


def refused(says: str, call, *arguments, root: Path, **settings) -> None:
    """The call fails with one line that says this, and `root` is as it was."""
    before = sorted(root.rglob("*"))
    with pytest.raises(InputError, match=says) as error:
        call(*arguments, root, **settings)
    assert "\n" not in str(error.value)
    assert sorted(root.rglob("*")) == before


@pytest.fixture
def root(tmp_path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.fixture
def market_zip(tmp_path) -> Path:
    return write_zip(tmp_path / "market.zip", small_market())


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> Path:
    """The recorded trees prepared and combined."""
    folder = tmp_path_factory.mktemp("recorded")
    for name in ("market1501", "dukemtmc"):
        archive = write_zip(folder / f"{name}.zip", tree_files(name))
        assert prepare(name, archive, folder) == folder / name
    assert combine([folder / name for name in TREES["combined"]["of"]], folder) == folder / "combined"
    return folder


@pytest.mark.parametrize("name", ["market1501", "dukemtmc", "combined"])
def test_partitions_equal_the_originals(recorded, name):
    content = pickle.loads((recorded / name / "partitions.pkl").read_bytes())
    expected = TREES[name]["partitions"]
    assert set(content) == set(expected)
    for key, value in expected.items():
        if isinstance(value, dict):
            assert [(str(person), label) for person, label in content[key].items()] == list(value.items())
        else:
            assert content[key] == value, key


def test_pictures_are_copied_unchanged(recorded):
    expected = {new: signed(old) for old, new in TREES["market1501"]["original_to_new"].items()}
    images = recorded / "market1501" / "images"
    assert {path.name: path.read_bytes() for path in images.iterdir()} == expected


def test_original_to_new(recorded):
    folder = recorded / "market1501"
    mapped = json.loads((folder / "original_to_new.json").read_text())
    assert mapped == TREES["market1501"]["original_to_new"]
    assert mapped == pickle.loads((folder / "original_to_new.pkl").read_bytes())
    duke = json.loads((recorded / "dukemtmc" / "original_to_new.json").read_text())
    assert len(duke) == sum(map(len, TREES["dukemtmc"]["raw"].values())) == len(set(duke.values()))
    for old, new in duke.items():
        assert (recorded / "dukemtmc" / "images" / new).read_bytes() == signed(old)
    combined = json.loads((recorded / "combined" / "original_to_new.json").read_text())
    for old, new in combined.items():
        assert (recorded / "combined" / "images" / new).read_bytes() == (recorded / old).read_bytes()
    assert sorted(combined.values()) == sorted(TREES["combined"]["partitions"]["trainval_im_names"])


def prepare_and_die(archive: Path, root: Path, at: int) -> None:
    """Prepare and combine; the process dies before its touch `at` of the root's disk, which counts all into a file."""
    events = 0

    def count(event: str, arguments: tuple) -> None:
        nonlocal events
        touches = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree", "shutil.copyfile")
        if event in touches and str(root) in str(arguments[0]):
            events += 1
            if events == at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    market = prepare("market1501", archive, root, num_val_ids=1)
    combine([market], root)
    root.with_suffix(".events").write_text(str(events))


def tree(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_killed_at_any_moment_it_can_be_repeated(market_zip, tmp_path, warm):
    """SIGKILL at 20 moments of preparing and combining; the call afterwards makes the same tree, byte for byte."""

    def call(root: Path, at: int) -> int | None:
        process = warm.Process(target=prepare_and_die, args=(market_zip, root, at))
        process.start()
        process.join()
        return process.exitcode

    assert call(tmp_path / "whole", 0) == 0
    total = int((tmp_path / "whole.events").read_text())
    whole = tree(tmp_path / "whole")
    assert total > 40 and len(whole) == 20 + 8 + 8
    moments = [*random.Random(0).sample(range(1, total + 1), 18), 1, total]
    root = tmp_path / "cut"
    for number, at in enumerate(moments):
        if number % 2:
            shutil.rmtree(root, ignore_errors=True)  # else it goes on from where the last kill left it
        first = call(root, at)
        if number % 2:
            assert first == -signal.SIGKILL, "nothing was killed"
        for name in ("market1501", "combined"):  # what is there is whole
            if (root / name).exists():
                assert tree(root / name) == tree(tmp_path / "whole" / name)
        assert call(root, 0) == 0
        assert tree(root) == whole


def test_the_archive_s_folder_is_enough(tmp_path):
    write_zip(tmp_path / "Market-1501-v15.09.15.zip", small_market())
    made = prepare("market1501", tmp_path, tmp_path / "data", num_val_ids=1)
    assert len(open_dataset(made, "trainval")) == 8
    with pytest.raises(InputError, match=r"DukeMTMC-reID\.zip does not exist"):
        prepare("dukemtmc", tmp_path, tmp_path / "data")


def test_a_dataset_is_combined_once(recorded):
    with pytest.raises(InputError, match="given 2 times"):
        combine([recorded / "market1501", recorded / "market1501"], recorded)


def test_three_are_combined_unless_told(tmp_path):
    with pytest.raises(InputError, match=r"market1501.partitions\.pkl does not exist"):
        combine(root=tmp_path)


def test_combined_pictures_are_those_of_their_sets(recorded):
    pictures = Counter(path.read_bytes() for path in (recorded / "combined" / "images").iterdir())
    sets = [open_dataset(recorded / name, "trainval") for name in TREES["combined"]["of"]]
    assert pictures == Counter(path.read_bytes() for dataset in sets for path in dataset.paths)
    whole = open_dataset(recorded / "combined", "trainval")
    first, second = (len(set(dataset.ids.tolist())) for dataset in sets)
    assert sorted(set(whole.ids.tolist())) == list(range(first + second))
    for path, camera, label in zip(whole.paths, whole.cameras, whole.labels, strict=True):
        name = path.read_bytes()[6:60].decode("latin1").split("/")[1]  # the signature: the raw name
        assert int(name.split("_c")[1][0]) == camera
        assert (label < first) == ("_f" not in name)


def test_open_dataset(recorded):
    folder = recorded / "market1501"
    expected = TREES["market1501"]["partitions"]
    for part in ("trainval", "train", "val", "test"):
        dataset = open_dataset(folder, part)
        names = expected[f"{part}_im_names"]
        assert len(dataset) == len(names) and dataset.folder == folder and dataset.part == part
        assert [path.name for path in dataset.paths] == names and all(path.is_file() for path in dataset.paths)
        assert dataset.ids.tolist() == [int(name[:8]) for name in names]
        assert dataset.cameras.tolist() == [int(name[9:13]) for name in names]
        assert dataset.ids.dtype == dataset.cameras.dtype == np.int64
        if part in ("val", "test"):
            assert dataset.labels is None
            assert dataset.marks.tolist() == expected[f"{part}_marks"] and dataset.marks.dtype == np.int64
        else:
            assert dataset.marks is None and dataset.labels.dtype == np.int64
            labels = expected[f"{part}_ids2labels"]
            assert dataset.labels.tolist() == [labels[str(person)] for person in dataset.ids]


@pytest.mark.parametrize("part", ["trainval", "test"])
@pytest.mark.parametrize("kind", ["mask", "indices", "slice"])
def test_some_of_a_dataset(recorded, part, kind):
    whole = open_dataset(recorded / "market1501", part)
    index = np.arange(1, len(whole), 2)
    mask = np.isin(np.arange(len(whole)), index)
    chosen = whole[{"mask": mask, "indices": index, "slice": slice(1, None, 2)}[kind]]
    assert len(chosen) == len(index) and chosen.paths == whole.paths[1::2]
    assert (chosen.folder, chosen.part, chosen.cameras_known) == (whole.folder, whole.part, whole.cameras_known)
    for name in ("ids", "cameras", "labels", "marks"):
        values = getattr(whole, name)
        np.testing.assert_array_equal(getattr(chosen, name), values if values is None else values[index])
    assert whole[index[::-1]].paths == chosen.paths[::-1] and len(whole[index[:0]]) == 0


def test_an_empty_part_opens(market_zip, root):
    folder = prepare("market1501", market_zip, root, num_val_ids=0)
    assert len(open_dataset(folder, "val")) == 0
    assert len(open_dataset(folder, "train")) == len(open_dataset(folder, "trainval")) == 8


def test_a_second_call_finds_the_work_done(market_zip, root, monkeypatch):
    folder = prepare("market1501", market_zip, root, num_val_ids=1)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    market_zip.unlink()
    monkeypatch.setattr(market_duke, "prepare_folders", None)
    assert prepare("market1501", market_zip, root, num_val_ids=1) == folder
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    refused("made with num_val_ids=1, not 2", prepare, "market1501", market_zip, root=root, num_val_ids=2)


def test_a_folder_of_someone_else_stays(market_zip, root):
    (root / "market1501").mkdir()
    (root / "market1501" / "mine.txt").write_text("mine")
    refused("not made by prepare", prepare, "market1501", market_zip, root=root, num_val_ids=1)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError(), OSError(errno.EIO, "Input/output error")])
def test_an_interrupted_call_leaves_nothing_and_can_be_repeated(market_zip, root, monkeypatch, error):
    calls, whole = iter(range(100)), jpegs.read_image

    def read(*arguments):
        if next(calls) == 5:
            raise error
        return whole(*arguments)

    monkeypatch.setattr(jpegs, "read_image", read)
    with pytest.raises((type(error), InputError)):
        prepare("market1501", market_zip, root / "a" / "b", num_val_ids=1)
    assert list(root.iterdir()) == []
    monkeypatch.undo()
    assert len(open_dataset(prepare("market1501", market_zip, root / "a" / "b", num_val_ids=1), "test")) == 12


def test_a_killed_call_can_be_repeated(market_zip, root):
    rest = root / ".market1501.partial" / "images"  # what a kill leaves
    rest.mkdir(parents=True)
    (rest / format_name(99, 1, 0)).write_bytes(JPEG[:50])
    folder = prepare("market1501", market_zip, root, num_val_ids=1)
    assert list(root.iterdir()) == [folder]
    assert len(list((folder / "images").iterdir())) == 20
    assert not (folder / "images" / format_name(99, 1, 0)).exists()


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "no space left for .*market1501.* free space"),
        (PermissionError(errno.EACCES, "Permission denied"), "cannot be made .*Permission denied.* may write"),
    ],
)
def test_no_space_and_no_permission(market_zip, root, monkeypatch, error, says):
    class Full(io.BytesIO):
        def write(self, data):
            raise error

    monkeypatch.setattr(jpegs, "open", lambda *_, **__: Full(), raising=False)
    refused(says, prepare, "market1501", market_zip, root=root, num_val_ids=1)


def test_a_root_that_cannot_be(market_zip, root):
    (root / "file").write_text("")
    refused(
        "cannot be made",
        lambda *a, **s: prepare(*a[:-1], a[-1] / "file" / "x", **s),
        "market1501",
        market_zip,
        root=root,
        num_val_ids=1,
    )


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_root_without_permission(market_zip, root):
    root.chmod(stat.S_IRUSR | stat.S_IXUSR)
    refused("cannot be made", prepare, "market1501", market_zip, root=root, num_val_ids=1)


def test_arguments_that_make_no_sense(market_zip, root):
    refused("no dataset 'viper'; give one of market1501", prepare, "viper", market_zip, root=root)
    refused("leave split_file out", prepare, "market1501", market_zip, root=root, split_file="x.pkl")
    for count in (-1, 1.5, True):
        refused("num_val_ids", prepare, "market1501", market_zip, root=root, num_val_ids=count)
    refused("num_val_ids=100 .* has 4 ids", prepare, "market1501", market_zip, root=root)
    refused("num_val_ids=4 .* has 4 ids", prepare, "market1501", market_zip, root=root, num_val_ids=4)


def test_too_many_validation_ids_are_refused_before_any_picture(market_zip, root, monkeypatch):
    monkeypatch.setattr(jpegs, "read_image", None)
    refused("num_val_ids=100", prepare, "market1501", market_zip, root=root)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("market1501", r"Market-1501-v15\.09\.15\.zip there: .*https://"),
        ("cuhk03", r"cuhk03_release\.zip there: .*https://"),
        ("dukemtmc", r"DukeMTMC-reID\.zip there: [^:]*withdrawn by its makers in 2019"),
    ],
)
def test_a_missing_archive_says_where_to_get_it(name, says, root):
    refused(f"nowhere.zip does not exist; put {says}", prepare, name, root / "nowhere.zip", root=root)


def test_archives_that_are_none(root, tmp_path, market_zip):
    path = tmp_path / "other.zip"
    for content in (b"", b"hello", b"\x1f\x8b" + bytes(100)):
        path.write_bytes(content)
        refused("other.zip is not a zip", prepare, "market1501", path, root=root)
        refused("other.zip is not a zip", prepare, "cuhk03", path, root=root)
    whole = market_zip.read_bytes()
    for size in (len(whole) // 2, len(whole) - 10):
        path.write_bytes(whole[:size])
        refused("other.zip is cut short", prepare, "market1501", path, root=root)


@pytest.mark.parametrize("entry", ["/etc/x.jpg", "../x.jpg", "release/../../x.jpg", "C:/x.jpg", "..\\x.jpg", "\\x.jpg"])
def test_entries_that_point_outside(entry, root, tmp_path):
    path = write_zip(tmp_path / "bad.zip", small_market() | {entry: JPEG})
    refused("bad.zip contains an entry that points outside", prepare, "market1501", path, root=root, num_val_ids=1)


def test_links_are_refused(root, tmp_path, market_zip):
    with zipfile.ZipFile(market_zip, "a") as archive:
        link = zipfile.ZipInfo("query/0006_c3s1_000001_00.jpg")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    refused("points outside", prepare, "market1501", market_zip, root=root, num_val_ids=1)


PROGRESSIVE = io.BytesIO()
Image.effect_noise((64, 128), 60).save(PROGRESSIVE, "JPEG", progressive=True)
NOISE = encode(np.asarray(Image.effect_noise((64, 128), 60)))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no picture",
        JPEG[: len(JPEG) // 2],
        NOISE[: len(NOISE) // 2],
        PROGRESSIVE.getvalue()[:-200],
        encode(np.zeros((4, 4, 3), np.uint8), "PNG"),
        JPEG.replace(b"\x00\x20\x00\x10", b"\xff\x00\xff\x00", 1),  # claims 65 280 pixels a side
    ],
    ids=["empty", "text", "half", "half noise", "cut progressive", "png", "huge"],
)
def test_pictures_that_do_not_decode(content, root, tmp_path):
    files = small_market() | {"query/0006_c3s1_000001_00.jpg": content}
    path = write_zip(tmp_path / "bad.zip", files)
    refused(
        r"query/0006_c3s1_000001_00\.jpg (does not decode|claims)",
        prepare,
        "market1501",
        path,
        root=root,
        num_val_ids=1,
    )


def test_pictures_that_decode_are_taken(root, tmp_path):
    gray = encode(np.zeros((4, 4), np.uint8))
    files = small_market() | {"query/0006_c3s1_000001_00.jpg": PROGRESSIVE.getvalue()}
    files["query/0006_c4s1_000001_00.jpg"] = gray
    files |= {"__MACOSX/query/._0006_c4s1_000001_00.jpg": b"", "query/.DS_Store": b"", "query/readme.txt": b""}
    folder = prepare("market1501", write_zip(tmp_path / "m.zip", files, zipfile.ZIP_DEFLATED), root, num_val_ids=1)
    assert (folder / "images" / format_name(6, 4, 0)).read_bytes() == gray


def test_a_damaged_picture_is_caught_by_its_checksum(root, tmp_path):
    path = write_zip(tmp_path / "bad.zip", small_market())
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo("query/0006_c2s1_000001_00.jpg")
    data[entry.header_offset + 30 + len(entry.filename) + len(JPEG) // 2] ^= 1
    path.write_bytes(data)
    refused("query/0006_c2s1_000001_00.jpg does not decode", prepare, "market1501", path, root=root, num_val_ids=1)


def test_archives_of_other_datasets(root, tmp_path, market_zip):
    duke = write_zip(
        tmp_path / "duke.zip",
        {
            f"D/{folder}/000{person}_c{camera}_f0046182.jpg": JPEG
            for folder in MARKET_FOLDERS[:3]
            for person in (1, 2)
            for camera in (1, 2)
        },
    )
    cuhk = write_zip(tmp_path / "cuhk.zip", {"cuhk03_release/cuhk-03.mat": b"", "cuhk03_release/readme": b""})
    other = write_zip(tmp_path / "other.zip", {"a/b.txt": b"x", "query/holiday.jpg": JPEG})
    refused("no folder gt_bbox/.* looks like dukemtmc", prepare, "market1501", duke, root=root)
    refused(
        "query/.*jpg is not named .* looks like market1501|bounding_box_train/.*looks like market1501",
        prepare,
        "dukemtmc",
        market_zip,
        root=root,
    )
    refused("no folder bounding_box_train/.* looks like cuhk03", prepare, "market1501", cuhk, root=root)
    refused("no file cuhk-03.mat.* looks like market1501", prepare, "cuhk03", market_zip, root=root)
    refused("no file cuhk-03.mat.* looks like none", prepare, "cuhk03", other, root=root)
    refused("no folder bounding_box_train/.* looks like none", prepare, "market1501", other, root=root)


def test_other_pictures_and_empty_folders_are_refused(root, tmp_path):
    png = write_zip(tmp_path / "png.zip", small_market() | {"query/0006_c3s1_000001_00.png": JPEG})
    refused("000001_00.png is not named as", prepare, "market1501", png, root=root, num_val_ids=1)
    twice = write_zip(tmp_path / "twice.zip", {f"{top}/{name}": JPEG for top in "ab" for name in small_market()})
    refused("twice.zip contains .* twice", prepare, "market1501", twice, root=root, num_val_ids=1)
    files = {name: content for name, content in small_market().items() if not name.startswith("query")}
    empty = write_zip(tmp_path / "empty.zip", files | {"query/Thumbs.db": b"", "query/readme.txt": b""})
    refused("no image in query/", prepare, "market1501", empty, root=root, num_val_ids=1)


def test_what_open_dataset_refuses(market_zip, root):
    folder = prepare("market1501", market_zip, root, num_val_ids=1)

    def says(text: str, where: Path, part: str = "test") -> None:
        with pytest.raises(InputError, match=text):
            open_dataset(where, part)

    says("no part 'tset'; give one of trainval, train, val, test", folder, "tset")
    says("root has no partitions.pkl, so it is not a prepared dataset", root)
    combined = combine([folder], root)
    says("has no part test; it has trainval$", combined)
    gone = open_dataset(folder, "test").paths[3]
    gone.unlink()
    says(f"{gone.name} is listed and not there", folder)
    (folder / "partitions.pkl").unlink()
    says("was there once; restore it, or delete", folder)
    shutil.rmtree(combined)
    refused(r"partitions\.pkl does not exist", combine, [folder], root=root)


def test_what_combine_refuses(market_zip, root):
    folder = prepare("market1501", market_zip, root, num_val_ids=1)
    refused("nothing to combine", combine, [], root=root)
    refused("nowhere/partitions.pkl does not exist", combine, [folder, root / "nowhere"], root=root)
    open_dataset(folder, "trainval").paths[0].unlink()
    refused("combined cannot be made .*No such file", combine, [folder], root=root)


def test_combined_pictures_come_in_the_order_of_their_names(made_cuhk, root):
    folder = prepare("cuhk03", made_cuhk["archive"], root, split_file=made_cuhk["split_file"], num_val_ids=0)
    sets = [folder / kind for kind in cuhk03_split.KINDS]
    expected = [path.read_bytes() for one in sets for path in sorted(open_dataset(one, "trainval").paths)]
    combined = open_dataset(combine(sets, root), "trainval")
    assert [path.read_bytes() for path in combined.paths] == expected
    assert combined.labels.tolist() == combined.ids.tolist() == sorted(combined.ids.tolist())
    refused("combined was made with of=", combine, sets[:1], root=root)


# CUHK03 ---------------------------------------------------------------------------------------------------------


def picture(seed: int) -> np.ndarray:
    """A smooth picture of its own size: it survives JPEG, and a transposed one would not match."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (3, 2, 3), dtype=np.uint8))
    return np.asarray(coarse.resize((20 + seed % 5, 40 + seed % 7), Image.Resampling.BICUBIC))


def write_mat(path: Path, pairs: dict[str, list[np.ndarray]], pictures: dict[int, np.ndarray]) -> Path:
    """A MATLAB v7.3-like file: `pairs[kind][pair]` is a table [persons, 10] of picture numbers, -1 absent."""
    reference = h5py.special_dtype(ref=h5py.Reference)
    with h5py.File(path, "w", userblock_size=512) as mat:
        store = mat.create_group("#refs#")
        references = {}
        for number, pixels in pictures.items():
            compressed = {"chunks": True, "compression": "gzip"} if number % 2 else {}
            references[number] = store.create_dataset(f"p{number}", data=pixels.T, **compressed).ref
        absent = store.create_dataset("absent", data=np.zeros(2, np.uint64))
        absent.attrs["MATLAB_empty"] = np.uint8(1)
        references[-1] = absent.ref
        for kind, tables in pairs.items():
            top = mat.create_dataset(kind, (1, len(tables)), reference)
            for pair, numbers in enumerate(tables):
                cells = np.empty(numbers.T.shape, reference)
                for place, number in np.ndenumerate(numbers.T):
                    cells[place] = references[int(number)]
                top[0, pair] = store.create_dataset(f"{kind}{pair}", data=cells, dtype=reference).ref
    with open(path, "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64")
    return path


def write_cuhk(path: Path, mat: Path, compression: int = zipfile.ZIP_DEFLATED) -> Path:
    return write_zip(path, {"cuhk03_release/cuhk-03.mat": mat.read_bytes(), "cuhk03_release/README": b""}, compression)


PAIRS = (3, 2, 1, 1, 1)  # persons


@pytest.fixture(scope="module")
def made_cuhk(tmp_path_factory) -> dict:
    """Eight persons in five pairs, pictures absent here and there, and a split of them."""
    folder = tmp_path_factory.mktemp("cuhk")
    rng = np.random.default_rng(1)
    numbers = rng.permutation(2 * sum(PAIRS) * 10)
    pictures = {int(number): picture(int(number)) for number in numbers}
    tables, truth = {}, {}
    for kind, flat in zip(("detected", "labeled"), numbers.reshape(2, sum(PAIRS), 10), strict=True):
        flat[rng.random(flat.shape) < 0.25] = -1
        flat[:, [1, 6]] = np.where(flat[:, [1, 6]] < 0, flat[:, [0, 5]], flat[:, [1, 6]])
        flat[0, [0, 5]] = -1  # the first cells of the first person
        flat[0, [1, 6]] = list(pictures)[:2]
        tables[kind] = np.split(flat, np.cumsum(PAIRS)[:-1])
        truth[kind] = flat
    split = {}
    for kind, flat in truth.items():
        names = {
            person: [format_name(person, place // 5, place % 5) for place in range(10) if flat[person, place] >= 0]
            for person in range(sum(PAIRS))
        }
        test = [name for person in (1, 6) for name in names[person]]
        split[kind] = {
            "train_im_names": [name for person in (7, 5, 4, 3, 2, 0) for name in names[person]],
            "query_im_names": test[::2],
            "gallery_im_names": test[1::2],
        }
    save_pickle(split, folder / "split.pkl")
    mat = write_mat(folder / "cuhk-03.mat", tables, pictures)
    archive = write_cuhk(folder / "cuhk03_release.zip", mat)
    return dict(archive=archive, mat=mat, split_file=folder / "split.pkl", split=split, truth=truth, pictures=pictures)


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
def test_cuhk03_pictures_and_partitions(made_cuhk, root, tmp_path, compression):
    archive = write_cuhk(tmp_path / "c.zip", made_cuhk["mat"], compression)
    folder = prepare("cuhk03", archive, root, split_file=made_cuhk["split_file"], num_val_ids=2)
    assert sorted(path.name for path in folder.iterdir()) == ["all", "detected", "labeled", "prepared.json"]
    expected: dict[str, dict[str, int]] = {"detected": {}, "labeled": {}, "all": {}}
    for kind, numbers in made_cuhk["truth"].items():
        for (person, place), number in np.ndenumerate(numbers):
            if number >= 0:
                view, k = divmod(place, 5)
                expected[kind][format_name(person, view, k)] = int(number)
                expected["all"][format_name(person, view, k + 5 * (kind == "labeled"))] = int(number)
    for kind, names in expected.items():
        images = folder / kind / "images"
        assert {path.name for path in images.iterdir()} == set(names)
        for name, number in names.items():
            with Image.open(images / name) as image:
                assert image.mode == "RGB" and image.format == "JPEG"
                assert {layer[1:3] for layer in image.layer} == {(1, 1)}  # no chroma subsampling
                assert image.quantization[0][0] == 2  # quality 95
                stored = np.asarray(image).astype(int)
            pixels = made_cuhk["pictures"][number].astype(int)
            assert stored.shape == pixels.shape and np.abs(stored - pixels).mean() < 3
    for kind, lists in made_cuhk["split"].items():
        test = open_dataset(folder / kind, "test")
        assert [path.name for path in test.paths] == lists["query_im_names"] + lists["gallery_im_names"]
        assert test.marks.tolist() == [0] * len(lists["query_im_names"]) + [1] * len(lists["gallery_im_names"])
        trainval = open_dataset(folder / kind, "trainval")
        assert [path.name for path in trainval.paths] == lists["train_im_names"]
        assert dict(zip(trainval.ids.tolist(), trainval.labels.tolist(), strict=True)) == {
            person: label for label, person in enumerate((0, 2, 3, 4, 5, 7))
        }
        assert len(set(open_dataset(folder / kind, "val").ids.tolist())) == 2
    with pytest.raises(InputError, match=r"cuhk03 has no partitions\.pkl, but contains datasets: open .*detected"):
        open_dataset(folder, "test")
    with pytest.raises(InputError, match="but only images"):
        open_dataset(folder / "all", "trainval")


def test_cells_come_in_the_order_of_the_file(made_cuhk):
    # The order is worth minutes: a step back in a packed file unpacks up to eight chunks again.
    with h5py.File(made_cuhk["mat"]) as mat:
        cells, repeats = cuhk03._list_cells(mat, "mat", any_size=True)
        addresses = [h5py.h5o.get_info(mat[cell.reference].id).addr for cell in cells]
    assert len(cells) == 2 * 8 * 10 and not repeats
    assert addresses == sorted(addresses) == [cell.address for cell in cells]


def test_the_new_protocol_ships():
    split = cuhk03_split.new_protocol()
    counts = {kind: [len(names) for names in lists.values()] for kind, lists in split.items()}
    assert counts == {"detected": [7365, 1400, 5332], "labeled": [7368, 1400, 5328]}
    for lists in split.values():
        train, query, gallery = ({int(name[:8]) for name in names} for names in lists.values())
        assert len(train) == 767 and len(query) == 700 and query == gallery and not train & query
        every = [name for names in lists.values() for name in names]
        assert len(set(every)) == len(every)
        assert all(int(name[:8]) < 1467 and int(name[9:13]) < 2 and int(name[14:22]) < 5 for name in every)


def protocol_file(shared: Path) -> Path:
    """One of the new protocol's own two files."""
    return shared / "fixtures" / "cuhk03_np" / "cuhk03_new_protocol_config_detected.mat"


def test_the_new_protocol_equals_its_own_files(shared):
    assert cuhk03_split.new_protocol() == cuhk03_split.load_split(protocol_file(shared))


# As {pair}_{person}_{view}_{cell}: no such pair, no such person, no such cell, no such view, a cell of the other view.
WRONG_CELLS = (
    "0_1_1_1",
    "6_1_1_1",
    "1_0_1_1",
    "5_50_1_1",
    "1_1_2_11",
    "1_1_1_0",
    "1_1_3_1",
    "1_1_3_11",
    "1_1_2_1",
    "1_1_1_6",
)


def save_protocol(folder: Path, **changed) -> Path:
    """The two files of a protocol of three pictures, as MATLAB writes them."""
    names = ["1_001_1_02.png", "1_002_2_06.png", "2_001_1_01.png"]
    content = {
        "filelist": np.array(names, object)[:, None],
        "train_idx": [[1]],
        "query_idx": [[2]],
        "gallery_idx": [[3]],
    }
    for kind in cuhk03_split.KINDS:
        scipy.io.savemat(folder / f"config_{kind}.mat", content | changed)
    return folder / "config_labeled.mat"


def test_a_split_in_matlab_files_is_read(tmp_path):
    split = cuhk03_split.load_split(save_protocol(tmp_path))
    assert split["detected"] == split["labeled"]
    assert list(split["detected"].values()) == [
        [format_name(0, 0, 1)],
        [format_name(1, 1, 0)],
        [format_name(843, 0, 0)],
    ]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        *(
            ({"query_idx": [[index]]}, rf"\(query_idx contains {index}, not a whole number from 1 to 3\); download")
            for index in (0, 4, 1.5, -1, float("nan"), float("inf"))
        ),
        ({"query_idx": [[]]}, r"\(query_idx is empty\)"),
        *(
            ({"filelist": np.array(["1_001_1_02.png", "1_002_2_06.png", name], object)}, rf"\('{name}' is not a cell")
            for name in WRONG_CELLS
        ),
        ({"filelist": np.array([["a.png"], ["b.png"]], object)}, "not a file of CUHK03's new protocol"),
        ({"filelist": np.array([["7_001_1_02.png"]] * 3, object)}, "not a file of CUHK03's new protocol"),
        ({"train_idx": [[1, 1]]}, "names an image of detected twice"),
    ],
)
def test_a_split_in_matlab_files_that_cannot_be_is_refused(tmp_path, changed, reason):
    with pytest.raises(InputError, match=reason):
        cuhk03_split.load_split(save_protocol(tmp_path, **changed))


def test_a_damaged_or_absent_matlab_split_is_refused(tmp_path):
    path = save_protocol(tmp_path)
    content = path.read_bytes()
    for cut in (0, 60, 130, len(content) - 9):
        path.write_bytes(content[:cut])
        with pytest.raises(InputError, match=r"config_labeled\.mat is not a file of CUHK03's new protocol"):
            cuhk03_split.load_split(path)
    path.unlink()
    with pytest.raises(InputError, match=r"config_labeled\.mat: no such file; the new protocol's two \.mat files"):
        cuhk03_split.load_split(tmp_path / "config_detected.mat")


@pytest.mark.parametrize("name", ["split.mat", "detected_and_labeled.mat"])
def test_a_matlab_split_needs_its_kind_in_its_name(tmp_path, name):
    path = save_protocol(tmp_path).rename(tmp_path / name)
    with pytest.raises(InputError, match=rf"{name}: .* the two files .*_detected\.mat and .*_labeled\.mat"):
        cuhk03_split.load_split(path)


def test_a_matlab_split_may_have_a_suffix_in_capitals(tmp_path):
    split = cuhk03_split.load_split(save_protocol(tmp_path))
    for kind in cuhk03_split.KINDS:
        (tmp_path / f"config_{kind}.mat").rename(tmp_path / f"CONFIG_{kind}.MAT")
    assert cuhk03_split.load_split(tmp_path / "CONFIG_detected.MAT") == split


def test_a_matlab_split_is_both_its_files(root, tmp_path, monkeypatch):
    """Prepared with one, found with the other; a change in either is noticed."""
    archive, labeled = write_zip(tmp_path / "c.zip", {"any": b""}), save_protocol(tmp_path)
    detected = labeled.with_name("config_detected.mat")
    prepare_module = importlib.import_module("alignedreid_lib.datasets.prepare")
    monkeypatch.setattr(prepare_module, "prepare_cuhk03", lambda archive, partial, num_val_ids, split_file: None)
    made = prepare("cuhk03", archive, root, detected)
    monkeypatch.setattr(prepare_module, "prepare_cuhk03", None)
    assert prepare("cuhk03", archive, root, labeled) == prepare("cuhk03", archive, root, detected) == made
    content = detected.read_bytes()
    for changed in (labeled, detected):
        changed.write_bytes(content + b" ")
        for named in (labeled, detected):
            refused("made with a different split file", prepare, "cuhk03", archive, root=root, split_file=named)
        changed.write_bytes(content)
    detected.unlink()  # what is gone cannot be compared, and does not have to be
    assert prepare("cuhk03", archive, root, labeled) == made


def test_the_release_with_the_shipped_split(root, tmp_path):
    """The release's shape with one picture for all cells."""
    text = Path(cuhk03.__file__).with_name("cuhk03_new_protocol.txt").read_text()
    rows = [line.split()[1:] for line in text.splitlines() if not line.startswith("#")]
    cells = np.array([[[-1 if use == "." else 0 for use in column] for column in row] for row in rows])
    splits = np.cumsum(cuhk03_split.PERSONS)[:-1]
    pairs = {kind: np.split(cells[:, column], splits) for column, kind in enumerate(cuhk03_split.KINDS)}
    pictures = {0: picture(0)[:8, :4]}
    mat = write_mat(tmp_path / "cuhk-03.mat", pairs, pictures)
    folder = prepare("cuhk03", write_cuhk(tmp_path / "c.zip", mat), root)
    for kind, counts in (("detected", (7365, 1400, 5332)), ("labeled", (7368, 1400, 5328))):
        trainval, test = open_dataset(folder / kind, "trainval"), open_dataset(folder / kind, "test")
        assert (len(trainval), *np.bincount(test.marks)) == counts
        assert len(set(trainval.ids.tolist())) == 767 and len(set(test.ids.tolist())) == 700
        assert len(set(open_dataset(folder / kind, "val").ids.tolist())) == 100


def test_a_split_file_of_the_new_protocol_gives_the_built_in_split(root, tmp_path, shared):
    """Partitions byte for byte; the pictures do not depend on the split."""
    save_pickle(cuhk03_split.load_split(protocol_file(shared)), tmp_path / "re_ranking_train_test_split.pkl")
    splits = cuhk03_split.load_split(tmp_path / "re_ranking_train_test_split.pkl"), cuhk03_split.new_protocol()
    for kind in cuhk03_split.KINDS:
        for number, split in enumerate(splits):
            lists = [split[kind][key] for key in cuhk03_split.LISTS]
            make_partitions(lists[0], 100, lists[1], [], lists[2]).save(root / f"{kind}_{number}.pkl")
        assert (root / f"{kind}_0.pkl").read_bytes() == (root / f"{kind}_1.pkl").read_bytes()


def test_a_release_that_lacks_a_picture(made_cuhk, root, monkeypatch):
    person, place = np.argwhere(made_cuhk["truth"]["detected"] < 0)[-1]
    absent = format_name(person, place // 5, place % 5)
    split = made_cuhk["split"]
    split = {**split, "detected": {**split["detected"], "gallery_im_names": [absent]}}
    monkeypatch.setattr(cuhk03, "new_protocol", lambda: split)
    monkeypatch.setattr(cuhk03, "PERSONS", PAIRS)
    refused(
        f"lacks 1 detected images that the new protocol names .first: {absent}.*pass the split_file",
        prepare,
        "cuhk03",
        made_cuhk["archive"],
        root=root,
        num_val_ids=2,
    )


def test_labeled_that_repeats_detected_gets_pictures_only(made_cuhk, root, tmp_path, monkeypatch):
    tables = np.split(made_cuhk["truth"]["detected"], np.cumsum(PAIRS)[:-1])
    mat = write_mat(tmp_path / "cuhk-03.mat", dict.fromkeys(cuhk03_split.KINDS, tables), made_cuhk["pictures"])
    archive = write_cuhk(tmp_path / "repeats.zip", mat)
    refused(
        "lacks .* labeled images that .*split.pkl names",
        prepare,
        "cuhk03",
        archive,
        root=root,
        num_val_ids=2,
        split_file=made_cuhk["split_file"],
    )
    monkeypatch.setattr(cuhk03, "new_protocol", lambda: made_cuhk["split"])
    monkeypatch.setattr(cuhk03, "PERSONS", PAIRS)
    with pytest.warns(UserWarning, match="labeled repeats detected"):
        folder = prepare("cuhk03", archive, root, num_val_ids=2)
    assert len(open_dataset(folder / "detected", "test")) > 0
    with pytest.raises(InputError, match="but only images"):
        open_dataset(folder / "labeled", "test")
    assert len(list((folder / "labeled" / "images").iterdir())) == (made_cuhk["truth"]["detected"] >= 0).sum()


def test_a_made_archive_needs_its_own_split(made_cuhk, root):
    refused(
        r"has 8 persons in pairs of \(3, 2, 1, 1, 1\), .* pass the split_file",
        prepare,
        "cuhk03",
        made_cuhk["archive"],
        root=root,
    )


def test_split_files_that_do_not_fit(made_cuhk, root, tmp_path):
    path = tmp_path / "s.pkl"

    def says(text: str, content: object) -> None:
        save_pickle(content, path)
        refused(text, prepare, "cuhk03", made_cuhk["archive"], root=root, split_file=path, num_val_ids=2)

    good = made_cuhk["split"]
    other = {**good["detected"], "query_im_names": [format_name(900, 0, 0)]}
    says("lacks 1 detected images that .*s.pkl names .first: 00000900_0000_00000000.jpg", good | {"detected": other})
    says(
        r"s.pkl: '0002_c1s1_000451_03.jpg' is not a name",
        good | {"labeled": {**other, "query_im_names": ["0002_c1s1_000451_03.jpg"]}},
    )
    says(r"s.pkl has no list \['labeled'\]\['train_im_names'\]", {"detected": good["detected"]})
    says(
        r"s.pkl has no list \['detected'\]\['gallery_im_names'\]",
        {"detected": {key: names for key, names in good["detected"].items() if key != "gallery_im_names"}},
    )
    says("s.pkl has no list", [1, 2])
    says(r"contains 5; names are text", good | {"detected": {**other, "query_im_names": [5]}})
    says(
        "names an image of detected twice",
        good | {"detected": {**good["detected"], "query_im_names": good["detected"]["gallery_im_names"]}},
    )
    path.write_bytes(b"c__builtin__\neval\n(S'1'\ntR.")
    refused("s.pkl refers to __builtin__.eval", prepare, "cuhk03", made_cuhk["archive"], root=root, split_file=path)
    refused("gone.pkl does not exist", prepare, "cuhk03", made_cuhk["archive"], root=root, split_file="gone.pkl")


def test_mat_files_that_are_none(made_cuhk, root, tmp_path):
    mat = tmp_path / "m.mat"
    settings = dict(root=root, split_file=made_cuhk["split_file"], num_val_ids=2)
    for says, content in (
        ("version 5; save it again with -v7.3", b"MATLAB 5.0 MAT-file, Platform: PCWIN".ljust(128) + bytes(1000)),
        ("cannot be read as a MATLAB v7.3 file", b"no mat at all"),
        ("cannot be read as a MATLAB v7.3 file", b""),
        ("cannot be read as a MATLAB v7.3 file", made_cuhk["mat"].read_bytes()[:60_000]),
    ):
        mat.write_bytes(content)
        refused(f"cuhk-03.mat .*{says}", prepare, "cuhk03", write_cuhk(tmp_path / "m.zip", mat), **settings)
    with h5py.File(mat, "w") as file:
        file["other"] = 1
    refused("no 'detected'", prepare, "cuhk03", write_cuhk(tmp_path / "m.zip", mat), **settings)
    with h5py.File(mat, "w") as file:
        file["detected"], file["labeled"] = np.zeros((1, 5)), np.zeros((1, 5))
    refused("cannot be read as a MATLAB v7.3", prepare, "cuhk03", write_cuhk(tmp_path / "m.zip", mat), **settings)
    write_mat(mat, {kind: [np.zeros((8, 10), int)] for kind in cuhk03_split.KINDS}, {0: np.zeros((4, 4), np.uint8)})
    refused("not an image", prepare, "cuhk03", write_cuhk(tmp_path / "m.zip", mat), **settings)
    write_mat(mat, {kind: [np.zeros((8, 6), int)] for kind in cuhk03_split.KINDS}, {0: picture(0)})
    refused("has 6 cells per person", prepare, "cuhk03", write_cuhk(tmp_path / "m.zip", mat), **settings)


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
def test_a_damaged_mat(made_cuhk, root, tmp_path, compression):
    path = write_cuhk(tmp_path / "bad.zip", made_cuhk["mat"], compression)
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        size = archive.infolist()[0].compress_size
    settings = dict(root=root, split_file=made_cuhk["split_file"], num_val_ids=2)
    for place in np.linspace(60, size, 12).astype(int):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        refused("bad.zip", prepare, "cuhk03", path, **settings)


def test_no_space_for_cuhk03(made_cuhk, root, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    refused(
        "no space left for",
        prepare,
        "cuhk03",
        made_cuhk["archive"],
        root=root,
        num_val_ids=2,
        split_file=made_cuhk["split_file"],
    )


class SmallSteps(DeflatedFile):
    CHUNK, CHECKPOINT, CACHED, READ = 100, 3, 4, 37


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> tuple[Path, bytes]:
    content = "".join(random.Random(0).choices("aaab\n", k=5050)).encode()
    path = tmp_path_factory.mktemp("packed") / "p.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number, compression in enumerate((zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED)):
            archive.writestr(f"{number}.bin", content, compression)
    return path, content


@settings(deadline=None)  # other work on the machine is no failure
@given(st.integers(0, 1), st.lists(st.tuples(st.integers(-100, 5200), st.integers(0, 700)), max_size=20))
def test_a_packed_file_reads_like_a_plain_one(packed, entry, reads):
    path, content = packed
    with zipfile.ZipFile(path) as archive:
        info = archive.infolist()[entry]
    with SmallSteps(path, info) as file:
        assert file.seek(0, io.SEEK_END) == len(content) and file.read() == b""
        for position, size in reads:
            assert file.seek(position) == max(0, position)
            assert file.read(size) == content[max(0, position) :][:size]
        file.verify()
        assert len(file._cache) <= SmallSteps.CACHED


def test_packed_files_in_other_ways_are_refused(tmp_path):
    path = write_zip(tmp_path / "l.zip", {"x": bytes(100)}, zipfile.ZIP_LZMA)
    with zipfile.ZipFile(path) as archive, pytest.raises(InputError, match=r"l\.zip: x is packed in a way that"):
        DeflatedFile(path, archive.infolist()[0])


def test_partitions_load_what_prepare_wrote(market_zip, root):
    folder = prepare("market1501", market_zip, root, num_val_ids=1)
    partitions = Partitions.load(folder / "partitions.pkl")
    assert partitions.test_marks == [0] * 4 + [2] * 4 + [1] * 4
    assert partitions.trainval_ids2labels == {1: 0, 2: 1, 3: 2, 4: 3}


def test_another_test_set_comes_from_beside_the_training_s_archive(tmp_path, monkeypatch):
    archive, calls = tmp_path / "Market-1501-v15.09.15.zip", []
    archive.touch()
    monkeypatch.setattr(for_full_run, "prepare", lambda layout, place, root: calls.append((layout, place)))
    nothing = SimpleNamespace(marks=None)  # no test part to look at
    monkeypatch.setattr(for_full_run, "open_dataset", lambda folder, part: nothing)
    config = TrainConfig(dataset="market1501", data_root=str(tmp_path / "data"))
    book.prepare_data(config, str(archive), test_sets=("market1501", "dukemtmc"))
    assert calls == [("market1501", archive), ("dukemtmc", tmp_path)]


def test_datasets_need_no_torch():
    """Its import takes seconds and 700 MB, more than preparing Market-1501."""
    code = "import sys; sys.modules['torch'] = None; import alignedreid_lib.datasets"
    subprocess.run([sys.executable, "-c", code], check=True)


# Two processes at once


class Told(logging.Handler):
    """Passes on what is logged to a different process."""

    def __init__(self, queue):
        super().__init__()
        self.queue = queue

    def emit(self, record):
        self.queue.put(record.getMessage())


def make_slowly(target, source, queue, may_end, fails):
    prepared_folder.log.addHandler(Told(queue))
    lock.log.addHandler(Told(queue))
    prepared_folder.log.setLevel(logging.INFO)
    try:
        with prepared_folder.all_or_nothing(target, source, {"name": "x"}) as partial:
            if partial is None:
                queue.put("made already")
                return
            (partial / "images").mkdir()
            queue.put("at work")
            assert may_end.wait(60)
            if fails:
                raise FileNotFoundError(2, "No such file", "a.jpg")
            prepared_folder.write_manifest(partial, {"name": "x"})
    except InputError as error:
        queue.put(str(error))


@pytest.mark.parametrize("fails", [False, True], ids=["", "fails"])
def test_the_second_of_two_processes_waits_for_the_first(tmp_path, warm, fails):
    source, target = tmp_path / "a.zip", tmp_path / "data" / "x"
    source.touch()
    told, may_end = warm.Queue(), warm.Event()
    first, second = (warm.Process(target=make_slowly, args=(target, source, told, may_end, f)) for f in (fails, False))
    first.start()
    assert [told.get(timeout=60) for _ in range(2)] == ["preparing x from a.zip", "at work"]
    second.start()
    assert told.get(timeout=60) == f"{target}: a different process prepares it; waiting until it is done"
    may_end.set()
    for process in (first, second):
        process.join(60)
    rest = [told.get(timeout=10) for _ in range(3 if fails else 1)]
    if fails:
        assert sorted(rest)[1:] == ["at work", "preparing x from a.zip"] and "a.jpg: No such file" in sorted(rest)[0]
    else:
        assert rest == ["made already"]
    assert sorted(path.name for path in target.iterdir()) == ["images", prepared_folder.MANIFEST]
    assert [path.name for path in target.parent.iterdir()] == ["x"]
