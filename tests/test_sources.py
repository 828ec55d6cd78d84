"""Archives as they lie on people's disks: real names, Windows zips, folders in their place, one changed since."""

import errno
import gzip
import io
import json
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alignedreid_lib.datasets import combine, describe, market_duke, open_dataset, prepare, prepared_folder
from alignedreid_lib.datasets.describe import PUBLISHED
from alignedreid_lib.errors import InputError

NAME = "Market-1501-v15.09.15"


def jpeg(seed: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (4, 2, 3), dtype=np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


JPEG = jpeg()


def market(train: int = 4, suffix: str = ".jpg", first: int = 1) -> dict[str, bytes]:
    """People in two cameras each, two of them tested on; a picture's bytes are its own."""
    names = []
    for person in range(first, first + train + 2):
        folders = ["bounding_box_train"] if person < first + train else ["bounding_box_test", "query", "gt_bbox"]
        names += [f"{folder}/{person:04d}_c{camera}s1_000001_00{suffix}" for folder in folders for camera in (1, 2)]
    return {f"{NAME}/{name}": jpeg(seed) for seed, name in enumerate(names)}


def pack(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo("x", date_time=(2015, 9, 15, 12, 0, 0))
            info.filename = name  # as it is: the constructor would mend it on Windows
            archive.writestr(info, content)
    return path


def refused(says: str, *arguments, call=prepare, **settings) -> None:
    with pytest.raises(InputError, match=says) as error:
        call(*arguments, **settings)
    assert "\n" not in str(error.value)


def test_the_real_names_give_the_original_s_partitions(shared, tmp_path, monkeypatch):
    """A zip of one tiny JPEG under all names of the release; 38 of them end in .jpg.jpg."""
    fixtures = shared / "fixtures"
    names = gzip.decompress((fixtures / "market1501_names.txt.gz").read_bytes()).decode().split()
    archive = pack(tmp_path / "m.zip", {f"{NAME}/{name}": JPEG for name in names})
    monkeypatch.setattr(market_duke, "copy_images", lambda *_: None)  # seconds, and nothing of the names
    made = prepare("market1501", archive, tmp_path / "data")
    partitions = pickle.loads((made / "partitions.pkl").read_bytes())
    expected = json.loads(gzip.decompress((fixtures / "market1501_partitions.json.gz").read_bytes()))
    assert set(partitions) == set(expected) and len(expected) == 8
    for key, value in expected.items():
        found = partitions[key]
        assert ({str(k): v for k, v in found.items()} if isinstance(found, dict) else found) == value, key


@pytest.mark.parametrize("name", ["market1501", "dukemtmc"])
def test_names_with_the_suffix_twice_sort_where_those_with_one_did(name, tmp_path):
    stems = ("bounding_box_train/0001_c1", "bounding_box_train/0001_c2", "bounding_box_train/0002_c1")
    stems += ("query/0003_c1", "bounding_box_test/0003_c2")
    tail = "s1_00000{}_00" if name == "market1501" else "_f000000{}"
    made = []
    for doubled in (".jpg", ".jpg.jpg"):
        files = {}
        for stem in stems:
            for k in range(3):
                files[f"r/{stem}{tail.format(k)}{doubled if k == 1 else '.jpg'}"] = jpeg(len(files))
        if name == "market1501":
            files["r/gt_bbox/0003_c1s1_000000_00.jpg"] = JPEG
        root = tmp_path / f"data{doubled}"
        made.append(prepare(name, pack(tmp_path / f"{doubled}.zip", files), root, num_val_ids=1))
    assert (made[0] / "partitions.pkl").read_bytes() == (made[1] / "partitions.pkl").read_bytes()
    for path in (made[0] / "images").iterdir():
        assert path.read_bytes() == (made[1] / "images" / path.name).read_bytes()
    assert any(old.endswith(".jpg.jpg") for old in json.loads((made[1] / "original_to_new.json").read_text()))


@pytest.mark.parametrize("suffix", [".jfif", ".webp", ".heic", ".JPG", ".ppm"])
def test_no_picture_of_a_release_is_passed_over_for_its_suffix(suffix, tmp_path):
    files = market() | {f"{NAME}/query/0006_c3s1_000001_00{suffix}": JPEG}
    refused("0006_c3s1_000001_00.* is not named as", "market1501", pack(tmp_path / "m.zip", files), tmp_path / "d")


def test_pictures_of_a_release_in_other_folders_are_counted(tmp_path):
    files = market() | {f"{NAME}/query/more/{k}.jpg": JPEG for k in range(2)}
    with pytest.warns(UserWarning, match=r"2 images in other folders .* \(first: .*/query/more/0\.jpg\)"):
        prepare("market1501", pack(tmp_path / "m.zip", files), tmp_path / "d", num_val_ids=0)


def test_a_number_that_python_does_not_read_is_named(tmp_path):
    files = market() | {f"{NAME}/query/{'9' * 5000}_c3s1_000001_00.jpg": JPEG}
    refused("has an id above", "market1501", pack(tmp_path / "m.zip", files), tmp_path / "d")


@pytest.mark.parametrize("rest", [{}, {f"{NAME}/gt_bbox/": b""}, {f"{NAME}/gt_bbox/0001_c1s1_000001_00.jpg": JPEG}])
def test_market1501_without_boxes_for_multi_query(rest, tmp_path):
    """No folder, an empty folder, and one that shows nobody of the queries."""
    files = {name: content for name, content in market().items() if "gt_bbox" not in name} | rest
    with pytest.warns(UserWarning, match=r"no images for multi-query in gt_bbox/"):
        made = prepare("market1501", pack(tmp_path / "m.zip", files), tmp_path / "d", num_val_ids=0)
    assert sorted(open_dataset(made, "test").marks.tolist()) == [0] * 4 + [1] * 4


def test_zips_with_backslashes(tmp_path):
    files = {name.replace("/", "\\"): content for name, content in market().items()}
    files |= {f"{NAME}\\query\\": b"", f"{NAME}\\query\\Thumbs.db": b"", f"__MACOSX\\{NAME}\\query\\._x.jpg": b""}
    made = prepare("market1501", pack(tmp_path / "m.zip", files), tmp_path / "d", num_val_ids=1)
    plain = prepare("market1501", pack(tmp_path / "n.zip", market()), tmp_path / "e", num_val_ids=1)
    for one in ("partitions.pkl", "original_to_new.json"):
        assert (made / one).read_bytes() == (plain / one).read_bytes()
    for outside in ("C:\\query\\x.jpg", "\\\\host\\query\\x.jpg", "a\\..\\..\\x.jpg", "\\query\\x.jpg"):
        bad = pack(tmp_path / "bad.zip", files | {outside: JPEG})
        refused("points outside", "market1501", bad, tmp_path / "f", num_val_ids=1)


def test_folders_deep_inside_and_names_in_an_old_encoding(tmp_path):
    files = {f"Datensätze/2015/März/{name}": content for name, content in market().items()}
    path = pack(tmp_path / "m.zip", files)
    data = bytearray(path.read_bytes())
    for start, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):  # the flag that says UTF-8
        position = data.find(start)
        while position >= 0:
            data[position + place + 1] &= ~0x08
            position = data.find(start, position + 4)
    path.write_bytes(data)
    assert len(open_dataset(prepare("market1501", path, tmp_path / "d", num_val_ids=1), "trainval")) == 8


@pytest.mark.parametrize(
    ("start", "says"),
    [
        (b"", "is not a zip but empty"),
        (b"\x1f\x8b\x08", r"but packed with gzip.*unpack it, and pack its folder as a zip: python -m zipfile -c"),
        (b"BZh9", "but packed with bzip2"),
        (b"\xfd7zXZ\0", "but packed with xz"),
        (b"\x28\xb5\x2f\xfd", "but packed with zstd"),
        (b"Rar!\x1a\x07", "but a rar"),
        (b"7z\xbc\xaf\x27\x1c", "but a 7z"),
        (bytes(257) + b"ustar\0", "but a tar"),
        (b"\n<!DOCTYPE html>", "but a web page, saved in place of the archive"),
        (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        (b"MATLAB 7.3 MAT-file", "but a MATLAB file; pack it"),
        (b"\x89HDF\r\n\x1a\n", "but an HDF5 file; pack it"),
        (b"hello", "is not a zip; give the release archive"),
    ],
)
def test_other_files_in_place_of_a_zip(start, says, tmp_path):
    (tmp_path / "m.zip").write_bytes(start + bytes(600 if start else 0))
    for name in ("market1501", "cuhk03"):
        refused(says, name, tmp_path / "m.zip", tmp_path / "data")


def test_a_folder_in_place_of_an_archive(tmp_path):
    raw = tmp_path / "raw"
    for name, content in market().items():
        (raw / name).parent.mkdir(parents=True, exist_ok=True)
        (raw / name).write_bytes(content)
    for given in (raw, raw / NAME):
        refused(rf"{NAME} is an unpacked release; .*python -m zipfile -c", "market1501", given, tmp_path / "d")
    (raw / NAME).rename(raw / f"{NAME}.zip")  # some unpackers name the folder so
    refused("zip is an unpacked release", "market1501", raw, tmp_path / "d")
    shutil.rmtree(raw)
    (raw / "cuhk03_release").mkdir(parents=True)
    (raw / "cuhk03_release" / "cuhk-03.mat").touch()
    refused("cuhk03_release is an unpacked release", "cuhk03", raw, tmp_path / "d")
    refused("does not exist; put Market", "market1501", raw / "cuhk03_release", tmp_path / "d")
    pack(raw / "Market (1).zip", market())
    refused(r"the folder has Market \(1\)\.zip; .* give its path", "market1501", raw, tmp_path / "d")
    around = pack(tmp_path / "around.zip", {"Market.zip": (raw / "Market (1).zip").read_bytes()})
    refused("a zip around Market.zip: unpack that one", "market1501", around, tmp_path / "d")
    (tmp_path / "link.zip").symlink_to(tmp_path / "gone.zip")
    refused("link.zip is a link to .*gone.zip, which is not there", "market1501", tmp_path / "link.zip", tmp_path / "d")


# Known by content -----------------------------------------------------------------------------------------------


def test_an_archive_is_known_by_content(tmp_path):
    archive, data = pack(tmp_path / "m.zip", market()), tmp_path / "data"
    made = prepare("market1501", archive, data, num_val_ids=1)
    moved = archive.rename(tmp_path / "renamed.zip")
    assert prepare("market1501", moved, data, num_val_ids=1) == made, "the same archive under another name"
    pack(archive, market(6))
    refused("made from a different archive than is there now; delete it", "market1501", archive, data, num_val_ids=1)
    pack(archive, {name: jpeg(seed + 99) for seed, name in enumerate(market())})
    refused("made from a different archive", "market1501", archive, data, num_val_ids=1)
    archive.unlink()
    assert prepare("market1501", archive, data, num_val_ids=1) == made, "its archive is gone"
    refused("made with archive='m.zip', not 'o.zip'", "market1501", tmp_path / "o.zip", data, num_val_ids=1)


def test_a_dataset_made_before_contents_were_noted_still_opens(tmp_path):
    archive, data = pack(tmp_path / "m.zip", market()), tmp_path / "data"
    made = prepare("market1501", archive, data, num_val_ids=1)
    together = combine([made], data)
    for folder in (made, together):
        note = json.loads((folder / prepared_folder.MANIFEST).read_text())
        kept = {key: value for key, value in note.items() if not key.endswith("_content") and key != "pictures"}
        (folder / prepared_folder.MANIFEST).write_text(json.dumps(kept))
    pack(archive, market(6))
    assert prepare("market1501", archive, data, num_val_ids=1) == made
    assert combine([made], data) == together


def test_a_split_file_is_known_by_content(tmp_path):
    settings = {"name": "cuhk03", "archive": "c.zip", "split_file": "a.pkl", "split_file_content": "1"}
    (tmp_path / "made").mkdir()
    prepared_folder.write_manifest(tmp_path / "made", settings)

    def done(**changed) -> bool:
        return prepared_folder.is_done(tmp_path / "made", settings | changed)

    assert done() and done(split_file="b.pkl") and done(split_file_content=None)
    refused("made with a different split file than is there now", call=done, split_file_content="2")
    refused("made with split_file='a.pkl', not None", call=done, split_file=None, split_file_content=None)


def test_a_combined_set_knows_its_members_by_content(tmp_path):
    archive, data = pack(tmp_path / "m.zip", market()), tmp_path / "data"
    made = prepare("market1501", archive, data, num_val_ids=1)
    together = combine([made], data)
    assert combine([made], data) == together
    shutil.rmtree(made)
    assert json.loads((together / prepared_folder.MANIFEST).read_text())["pictures"]
    prepare("market1501", pack(archive, market(first=11)), data, num_val_ids=1)
    refused("combined was made of other images than are there now; delete it", [made], data, call=combine)


# The disk -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [errno.EACCES, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EIO, errno.ESTALE])
@pytest.mark.parametrize("call", ["prepare", "folder", "combine", "open_dataset"])
def test_what_the_disk_refuses_is_one_line(call, code, tmp_path, monkeypatch):
    archive = pack(tmp_path / "m.zip", market())
    made = prepare("market1501", archive, tmp_path / "data", num_val_ids=1)
    calls = {
        "prepare": lambda: prepare("market1501", archive, tmp_path / "data", num_val_ids=1),
        "folder": lambda: prepare("folder", tmp_path / "t.csv", tmp_path / "data"),
        "combine": lambda: combine([made], tmp_path / "data"),
        "open_dataset": lambda: open_dataset(made, "test"),
    }

    def refuse(path, *_, **__):
        raise OSError(code, "the disk says no", str(path))

    for method in ("is_dir", "is_file", "exists"):
        monkeypatch.setattr(Path, method, refuse)
    refused("the disk says no; give a", call=calls[call])


@pytest.mark.parametrize("value", [None, 5, "a\0b", "\ud800", ["x"], "~nobody-of-this-name/x"])
def test_what_is_no_path(value, tmp_path):
    refused("archive=.* is not a path", "market1501", value, tmp_path)
    refused("root=.* is not a path", "market1501", tmp_path / "m.zip", value)
    refused("folder=.* is not a path", value, "test", call=open_dataset)
    if value is not None:
        refused("split_file=.* is not a path", "cuhk03", tmp_path / "c.zip", tmp_path, value)


def test_long_names_and_files_in_the_way(tmp_path):
    archive = pack(tmp_path / "m.zip", market())
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for bad in ("x" * 5000, "file", "loop"):
        refused(".", "market1501", archive, tmp_path / bad, num_val_ids=1)
        refused(".", "market1501", tmp_path / bad, tmp_path / "data")
        refused(".", "folder", tmp_path / bad, tmp_path / "data")
        refused(".", tmp_path / bad, "test", call=open_dataset)
        refused(".", [tmp_path / bad], tmp_path / "data", call=combine)
    for folders in (str(tmp_path), tmp_path, 5):
        refused("is not a list of paths", folders, tmp_path, call=combine)
    assert not (tmp_path / "data").exists()


# What the real archive taught -----------------------------------------------------------------------------------


def test_queries_that_are_multi_query_pictures_are_no_duplicates(tmp_path):
    """1 831 queries of the real Market-1501 are in gt_bbox once more: one box, two folders."""
    files = market()
    for name in list(files):
        if "/query/" in name:
            files[name.replace("query", "gt_bbox")] = files[name]
    files[f"{NAME}/bounding_box_test/0005_c3s1_000001_00.jpg"] = files[f"{NAME}/query/0005_c1s1_000001_00.jpg"]
    made = prepare("market1501", pack(tmp_path / "m.zip", files), tmp_path / "d", num_val_ids=0)
    card = describe(open_dataset(made, "test"))
    assert card.repeated_queries == 3 and len(card.duplicates) == 1 and len(card.duplicates[0]) == 3
    assert "queries that are multi-query images too" in str(card)
    assert describe(open_dataset(made, "trainval")).repeated_queries == 0 and ("market1501", "test") in PUBLISHED
