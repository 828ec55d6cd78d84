"""People's own pictures: a folder a person, a table, or names; whatever form the pictures have."""

import io
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alignedreid_lib.batches import images
from alignedreid_lib.datasets import open_dataset, prepare
from alignedreid_lib.datasets.jpegs import to_jpeg
from alignedreid_lib.errors import InputError
from alignedreid_lib.evaluation import evaluate
from alignedreid_lib.evaluation.features import Features

RED, BLUE = (200, 30, 30), (30, 30, 200)


def picture(kind: str = "JPEG", top: tuple = RED, bottom: tuple = BLUE, mode: str = "RGB", **settings) -> bytes:
    """Red above blue, 16 wide and 32 high."""
    pixels = np.zeros((32, 16, 3), np.uint8)
    pixels[:16], pixels[16:] = top, bottom
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, kind, **settings)
    return buffer.getvalue()


def put(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def people(tmp_path) -> Path:
    """Six people, three pictures each, in a folder each; the names are hard on purpose."""
    names = ["anna", "Jürgen Groß", "李雷", "p10", "p9", "with space"]
    return put(tmp_path / "crops", {f"{name}/{k}.JPG": picture() for name in names for k in range(3)})


def test_one_folder_a_person(people, tmp_path):
    put(people, {"anna/notes.txt": b"no picture", ".cache/x.jpg": b"", "anna/.hidden.jpg": b""})
    with pytest.warns(UserWarning, match=r"18 images found; passed over: 1 \.txt, 1 hidden file, 1 hidden folder"):
        made = prepare("folder", people, tmp_path / "data")
    assert made == tmp_path / "data" / "folder"
    names = json.loads((made / "people.json").read_text("utf-8"))
    assert names == {"people": ["Jürgen Groß", "anna", "p9", "p10", "with space", "李雷"], "cameras": None}
    train, test = open_dataset(made, "trainval"), open_dataset(made, "test")
    assert not train.cameras_known and not test.cameras_known
    assert len(set(train.ids)) == len(set(test.ids)) == 3 and not set(train.ids) & set(test.ids)
    assert (test.marks == 0).sum() == 3 and (test.marks == 1).sum() == 6  # one query a person
    mapped = json.loads((made / "original_to_new.json").read_text("utf-8"))
    assert mapped == pickle.loads((made / "original_to_new.pkl").read_bytes()) and len(mapped) == 18
    assert mapped["李雷/2.JPG"] == "00000005_0000_00000002.jpg"
    assert (made / "images" / mapped["p9/0.JPG"]).read_bytes() == picture()


def test_it_is_found_again_until_a_picture_changes(people, tmp_path):
    made = prepare("folder", people, tmp_path / "data")
    before = sorted(path.stat().st_mtime_ns for path in made.rglob("*"))
    assert prepare("folder", people, tmp_path / "data") == made
    assert before == sorted(path.stat().st_mtime_ns for path in made.rglob("*"))
    with pytest.raises(InputError, match="made with seed=1, not 2"):
        prepare("folder", people, tmp_path / "data", seed=2)
    put(people, {"anna/new.png": picture("PNG")})
    with pytest.raises(InputError, match="made of other images than are there now; delete it"):
        prepare("folder", people, tmp_path / "data")


def test_unknown_cameras_are_said_and_nothing_is_left_out(people, tmp_path):
    test = open_dataset(prepare("folder", people, tmp_path / "data"), "test")
    labels = np.unique(test.ids, return_inverse=True)[1]
    points = np.eye(3, dtype=np.float32)[labels]  # perfect features
    import torch

    table = evaluate(Features.of(test, torch.from_numpy(points), torch.zeros(len(test), 0, 0)), ("global",), False)
    assert table.rows[0].rank1 == 1.0 and table.rows[0].num_valid == 3 and not table.rows[0].cameras_known
    assert "Cameras are not known: no image was left out" in str(table)
    assert table.to_dict()["rows"][0]["cameras_known"] is False


def test_names_by_a_pattern(tmp_path):
    names = [
        f"{day}/{who}_cam-{where}_{k}.png" for day in ("mon", "tue") for who in "abcd" for where in "xy" for k in (1, 2)
    ]
    folder = put(tmp_path / "crops", {name: picture("PNG") for name in names})
    pattern = r"/(?P<person>[a-d])_cam-(?P<camera>\w)_"
    made = prepare("folder", folder, tmp_path, num_val_ids=1, pattern=pattern)
    test = open_dataset(made, "test")
    assert test.cameras_known and set(test.cameras) == {0, 1}
    assert json.loads((made / "people.json").read_text()) == {"people": list("abcd"), "cameras": ["x", "y"]}
    assert (test.marks == 0).sum() == 4 and len(test) == 16  # a query of each camera
    assert len(set(open_dataset(made, "val").ids)) == 1 == len(set(open_dataset(made, "train").ids))


def test_a_table(tmp_path):
    put(tmp_path / "t", {f"{k}.bmp": picture("BMP") for k in range(8)})
    lines = [f"{k}.bmp,person {k // 4},door {k % 2}" for k in range(8)]
    table = tmp_path / "t" / "people.csv"
    table.write_text("﻿path,person,camera\n" + "\n".join(lines), "utf-8")
    made = prepare("folder", table, tmp_path / "data", test_share=1)
    test = open_dataset(made, "test")
    assert len(test) == 8 and (test.marks == 0).sum() == 4 and test.cameras_known
    assert len(open_dataset(made, "trainval")) == 0
    (tmp_path / "t" / "who.csv").write_text("person,path\nyou,0.bmp\nme,1.bmp\nme,2.bmp\n")
    made = prepare("folder", tmp_path / "t" / "who.csv", tmp_path / "more", test_share=1)
    assert not open_dataset(made, "test").cameras_known
    assert (open_dataset(made, "test").marks == 0).sum() == 1  # the other has one picture: gallery only


HEAD = b"path,person,camera\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "first line is '', *it has to be|first line is ''; it has to be"),
        (b"file,who\n0.jpg,a\n", "it has to be path,person,camera"),
        (HEAD, "contains no images"),
        (HEAD + b"0.jpg\n", "line 2 does not say path and person"),
        (HEAD + b"0.jpg,a,1,2\n", "line 2 does not say"),
        (HEAD + b"0.jpg,a,1\n9.jpg,a,1\n", "line 3: '9.jpg' is not there"),
        (HEAD + b"0.jpg,a,1\n0.jpg,b,1\n", "line 3: '0.jpg' is named a second time"),
        (HEAD + b"0.jpg,a,1\n1.jpg,a,\n", "1.jpg has no camera and others have"),
        (HEAD + b'"0.jpg,a,1\n', "is not CSV|does not say"),
        (HEAD + b"\xff\xfe,a,1\n", "not a text in UTF-8"),
        (HEAD + b"x" * 5000 + b",a,1\n", "correct the path|is not there"),
    ],
)
def test_tables_that_say_too_little(text, says, tmp_path):
    put(tmp_path, {"0.jpg": picture(), "1.jpg": picture(), "t.csv": text})
    with pytest.raises(InputError, match=says) as refused:
        prepare("folder", tmp_path / "t.csv", tmp_path / "data")
    assert "\n" not in str(refused.value) and not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("files", "settings", "says"),
    [
        ({}, {}, "contains no images"),
        ({"loose.jpg": picture()}, {}, r"1 of 1 images have a name without a person \(first: loose.jpg\)"),
        ({"a/0.jpg": picture()}, {"pattern": "("}, "not a regular expression"),
        ({"a/0.jpg": picture()}, {"pattern": "(a)"}, r"no group \(\?P<person>"),
        ({"a/0.jpg": picture()}, {"pattern": "(?P<person>b)"}, "1 of 1 images have a name without a person"),
        ({"a/0.jpg": b"text"}, {}, "0.jpg does not decode as an image"),
        ({"a/0.jpg": picture()[:-300]}, {}, "0.jpg does not decode"),
        ({"a/0.heic": b""}, {}, "0.heic is of a format that is not read; save it as JPEG"),
        ({"a/0.jpg": picture(), "b/0.jpg": picture()}, {}, "nobody can be searched for"),
        ({"a/0.jpg": picture()}, {"test_share": 1.5}, "test_share=1.5 is not a share"),
        ({"a/0.jpg": picture()}, {"seed": -1}, "seed=-1"),
        ({"a/0.jpg": picture()}, {"split_file": "x"}, "leave split_file out"),
        ({"a/0.jpg": picture()}, {"test_share": 0, "num_val_ids": 1}, "leaves nobody to train on"),
        ({"a/\udcff.jpg": picture()}, {}, "not plain text"),
    ],
)
def test_what_is_refused(files, settings, says, tmp_path):
    put(tmp_path / "crops", files).mkdir(exist_ok=True)
    with pytest.raises(InputError, match=says) as refused:
        prepare("folder", tmp_path / "crops", tmp_path / "data", **settings)
    assert "\n" not in str(refused.value) and not (tmp_path / "data").exists()


def test_the_release_s_own_arguments_are_not_for_folders(tmp_path):
    for settings in ({"pattern": "x"}, {"test_share": 0.2}, {"seed": 3}):
        with pytest.raises(InputError, match="leave pattern, test_share and seed out"):
            prepare("market1501", tmp_path / "m.zip", tmp_path, **settings)


def colours(jpeg: bytes) -> np.ndarray:
    """The mean colours of the upper and the lower half, [2, 3]."""
    pixels = np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"), float)
    return np.stack([pixels[: len(pixels) // 2].mean((0, 1)), pixels[len(pixels) // 2 :].mean((0, 1))])


@pytest.mark.parametrize(
    ("kind", "mode", "settings"),
    [
        ("PNG", "RGB", {}), ("BMP", "RGB", {}), ("WEBP", "RGB", {"quality": 95}), ("TIFF", "RGB", {}), ("GIF", "P", {}),
        ("PNG", "P", {}), ("PNG", "RGBA", {}), ("JPEG", "CMYK", {"quality": 95}), ("TIFF", "CMYK", {}),
    ],
)  # fmt: skip
def test_any_form_becomes_an_rgb_jpeg(kind, mode, settings):
    jpeg = to_jpeg(picture(kind, mode=mode, **settings), "it")
    opened = Image.open(io.BytesIO(jpeg))
    assert (opened.format, opened.mode, opened.size) == ("JPEG", "RGB", (16, 32))
    assert np.abs(colours(jpeg) - [RED, BLUE]).max() < 12


def test_grey_stays_grey_and_plain_jpegs_stay_as_they_are():
    for mode in ("L", "RGB"):
        data = picture(mode=mode)
        assert to_jpeg(data, "it") is data
    grey = colours(to_jpeg(picture("PNG", mode="L"), "it"))
    assert np.ptp(grey, axis=1).max() < 3


def test_transparent_parts_become_white():
    clear = Image.new("RGBA", (16, 32), (10, 20, 30, 0))
    buffer = io.BytesIO()
    clear.save(buffer, "PNG")
    assert colours(to_jpeg(buffer.getvalue(), "it")).min() > 250


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_turned_picture_is_set_upright(orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = {1: 0, 3: 180, 6: 90, 8: 270}[orientation]  # how the camera stored it
    upright = Image.open(io.BytesIO(picture("PNG")))
    buffer = io.BytesIO()
    upright.rotate(turned, expand=True).save(buffer, "JPEG", quality=95, exif=exif)
    jpeg = to_jpeg(buffer.getvalue(), "it")
    assert np.abs(colours(jpeg) - [RED, BLUE]).max() < 12
    (tmp_path / "x.jpg").write_bytes(jpeg)
    assert images.decode(tmp_path / "x.jpg").shape == (3, 32, 16)


def deep() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((32, 16), np.uint16)).save(buffer, "PNG")
    return buffer.getvalue()


def moving() -> bytes:
    buffer = io.BytesIO()
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (deep(), "pixels of kind I;16, not 8 bits"),
        (moving(), "contains 2 images"),
        (b"", "does not decode"),
        (picture("PNG")[:60], "does not decode"),
        (picture("ICO"), "does not decode as an image"),
        (b"\0" * (33 << 20), "larger than 32 MB"),
    ],
)
def test_what_is_no_single_eight_bit_picture(data, says):
    with pytest.raises(InputError, match=says):
        to_jpeg(data, "it")
