"""People's own pictures as they come: tables by spreadsheets, folders with links, names in all scripts, broken EXIF."""

import io
import json
import os
import struct
import unicodedata
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alignedreid_lib.batches import images
from alignedreid_lib.datasets import open_dataset, prepare
from alignedreid_lib.datasets.folder import list_sightings
from alignedreid_lib.datasets.jpegs import SUFFIXES, to_jpeg
from alignedreid_lib.errors import InputError


def picture(kind: str = "JPEG", seed: int = 0, **settings) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 4, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, kind, **settings)
    return buffer.getvalue()


def put(folder: Path, *names: str, content: bytes | None = None) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture() if content is None else content)
    return folder


def refused(says: str, call, *arguments, **settings) -> None:
    with pytest.raises(InputError, match=says) as error:
        call(*arguments, **settings)
    assert "\n" not in str(error.value)


# Tables ---------------------------------------------------------------------------------------------------------

ROWS = [("ann/0.jpg", "Ann", "1"), ("ann/1.jpg", "Ann", "2"), ("bo/0.jpg", "Bo", "1"), ("bo/1.jpg", "Bo", "2")]


@pytest.fixture
def crops(tmp_path) -> Path:
    return put(tmp_path / "crops", *(name for name, _, _ in ROWS))


def lines(separator: str = ",", head: str = "path,person,camera", end: str = "\n") -> str:
    return end.join([head.replace(",", separator), *map(separator.join, ROWS), ""])


@pytest.mark.parametrize(
    "table",
    [
        lines().encode("utf-8-sig"),
        lines().encode("utf-16"),
        b"\xfe\xff" + lines("\t").encode("utf-16-be"),
        lines(";").encode(),
        b"sep=;\r\n" + lines(";", end="\r\n").encode(),
        lines("\t", end="\r").encode(),
        lines(head="Path, Person ,CAMERA").encode(),
        lines(", ").encode(),
        lines(head="path\u00a0,\u3000person,camera\u200b").encode(),
        lines().replace("/", "\\").encode(),
        lines().replace("ann/", "./ann/").replace("bo/", "ann/../bo/").encode(),
        lines().replace("Ann,", "\tAnn\u00a0 ,").encode(),
        lines().replace("1.jpg,Bo,2", "1.jpg,\ufeffBo,\u00a02").encode(),
        ("\n\n" + lines().replace("\n", ",,\n") + ",,,,\n\n \n").encode(),
        "".join(f'"{line}"\n' for line in lines('";"').splitlines()).encode(),
    ],
    ids=["bom", "utf-16", "utf-16-be tabs", "semicolons", "sep=", "tabs, old mac", "capitals", "space after commas",
         "odd blanks", "backslashes", "dots", "blanks around", "zero width", "blank columns and lines", "quoted"],
)  # fmt: skip
def test_one_table_in_many_forms(table, crops):
    """Whatever wrote the table, it says the same."""
    (crops / "t.csv").write_bytes(table)
    found = list_sightings(crops / "t.csv")
    assert sorted((s.path.resolve().relative_to(crops).as_posix(), s.person, s.camera) for s in found) == ROWS


def test_absolute_paths(crops):
    (crops / "t.csv").write_text("path,person\n" + "".join(f"{crops / name},{who}\n" for name, who, _ in ROWS))
    assert [s.person for s in list_sightings(crops / "t.csv")] == ["Ann", "Ann", "Bo", "Bo"]


def test_one_person_in_several_spellings(tmp_path):
    """Composed and decomposed accents, kinds of space: one person, and in folders as in tables."""
    spellings = ["José Luz", unicodedata.normalize("NFD", "José Luz"), "José\u00a0Luz", "José  Luz"]
    folder = put(tmp_path / "p", *(f"{k}.jpg" for k in range(4)))
    (folder / "t.csv").write_text("path,person\n" + "".join(f"{k}.jpg,{who} \n" for k, who in enumerate(spellings)))
    assert {s.person for s in list_sightings(folder / "t.csv")} == {"José Luz"}
    by_folder = put(tmp_path / "q", *(f"{who}/0.jpg" for who in spellings))
    assert len({s.person for s in list_sightings(by_folder)}) == 1


def test_a_file_name_in_the_other_unicode_form(tmp_path):
    for form, other in (("NFC", "NFD"), ("NFD", "NFC")):
        folder = put(tmp_path / form, unicodedata.normalize(form, "Zoë.jpg"))
        (folder / "t.csv").write_text(f"path,person\n{unicodedata.normalize(other, 'Zoë.jpg')},Zoë\n")
        assert list_sightings(folder / "t.csv")[0].path.is_file()


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("path,person\nann/0.jpg,A\n./ann/0.jpg,B\n", "line 3: './ann/0.jpg' is named a second time .first in line 2"),
        ("path,person\nann/0.jpg,A\nann\\0.jpg,B\n", "named a second time"),
        ("path,person\nann/0.jpg,A\nlink.jpg,B\n", "named a second time"),
        ("path,person\nann/0.jpg,A\nann,B\n", "line 3: 'ann' is a folder; name the image"),
        ("path,person\ngone.jpg,A\n", "'gone.jpg' is a link to .*nowhere.jpg, which is not there"),
        ("path,person,camera\nann/0.jpg,A,1\nann/1.jpg,A, \n", "ann/1.jpg has no camera and others have"),
        ("path,person\nann/0.jpg, \n", "does not say path and person"),
        ("path,person,person\nann/0.jpg,A,B\n", "it has to be path,person,camera"),
        ("path;person;age\nann/0.jpg;A;3\n", "first line is 'path;person;age'; it has to be"),
        (",path,person\n0,ann/0.jpg,A\n", "it has to be path,person,camera"),
        ('path,person\nann/0.jpg,"A\nB"\n', "1 name that is not plain text"),
        ("sep=", "it has to be path,person,camera"),
    ],
)
def test_tables_that_are_refused(table, says, crops):
    (crops / "link.jpg").symlink_to("ann/0.jpg")
    (crops / "gone.jpg").symlink_to("nowhere.jpg")
    (crops / "t.csv").write_text(table)
    refused(says, prepare, "folder", crops / "t.csv", crops / "data")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"PK\x03\x04\x14\0", "is a zip or a spreadsheet"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "not a text in UTF-8"),
        ("path,person\nann/0.jpg,Jos\u00e9\n".encode("cp1252"), "not a text in UTF-8"),
        (b"\xff\xfea", "not a text in UTF-8"),
    ],
)
def test_files_that_are_no_table(content, says, crops):
    (crops / "t.csv").write_bytes(content)
    refused(says, prepare, "folder", crops / "t.csv", crops / "data")


# Folders --------------------------------------------------------------------------------------------------------


def test_links_are_followed(tmp_path):
    store = put(tmp_path / "store", *(f"{who}/{k}.jpg" for who in ("erin", "frank") for k in range(2)))
    folder = put(tmp_path / "p", "anna/0.jpg", "anna/1.jpg")
    for who in ("erin", "frank"):
        (folder / who).symlink_to(store / who)
    put(tmp_path, "one.jpg")
    (folder / "anna" / "2.jpg").symlink_to(tmp_path / "one.jpg")
    (tmp_path / "link").symlink_to(folder)
    names = ["anna/0.jpg", "anna/1.jpg", "anna/2.jpg", "erin/0.jpg", "erin/1.jpg", "frank/0.jpg", "frank/1.jpg"]
    assert [s.name for s in list_sightings(tmp_path / "link")] == names


@pytest.mark.parametrize(
    ("link", "target", "says"),
    [
        ("p/anna/loop", "p", "anna/loop leads back to .*p, which contains it"),
        ("p/up", ".", "p/up leads back to"),
        ("p/anna/self", "p/anna/self", "self is a link to .*self, which is not there"),
        ("p/bob", "p/anna", "bob is the same as .*anna, by a link|anna is the same as .*bob, by a link"),
        ("p/bob/x.jpg", "p/anna/0.jpg", "x.jpg is the same as .*0.jpg, by a link"),
        ("p/erin", "unmounted/erin", "erin is a link to .*unmounted/erin, which is not there"),
        ("p/anna/x.jpg", "gone.jpg", "x.jpg is a link to .*gone.jpg, which is not there"),
    ],
)
def test_links_that_are_refused_by_name(link, target, says, tmp_path):
    put(tmp_path, "p/anna/0.jpg", "p/anna/1.jpg", "p/bob2/0.jpg")
    (tmp_path / link).parent.mkdir(exist_ok=True)
    (tmp_path / link).symlink_to(tmp_path / target)
    refused(says, prepare, "folder", tmp_path / "p", tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    folder, scan = put(tmp_path / "p", "anna/0.jpg", "bob/0.jpg"), os.scandir

    def refuse(path):
        if str(path).endswith("bob"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    refused("bob: Permission denied", prepare, "folder", folder, tmp_path / "data")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(put(tmp_path / "p", "anna/0.jpg") / "anna" / "1.jpg")
    refused("1.jpg has an image's name and is not a file", prepare, "folder", tmp_path / "p", tmp_path / "data")
    os.mkfifo(tmp_path / "t.csv")
    refused("t.csv is not a file or folder", prepare, "folder", tmp_path / "t.csv", tmp_path / "data")


@pytest.mark.parametrize("name", ["people", "t.csv"])
def test_a_link_in_place_of_the_source_is_named(name, tmp_path):
    (tmp_path / name).symlink_to("gone")
    refused(f"{name} is a link to gone, which is not there", prepare, "folder", tmp_path / name, tmp_path / "data")


def test_what_is_passed_over_is_counted(tmp_path):
    folder = put(tmp_path / "p", "anna/0.jpg", "anna/1.jpg", "bob/0.jpg", "bob/1.jpg")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(list_sightings(put(folder, "anna/Thumbs.db", ".DS_Store", "bob/._0.jpg", "bob/desktop.ini"))) == 4
    put(folder, "a.txt", "b.TXT", "anna/clip.mp4", "anna/0001", ".cache/0.jpg", "bob/.2.jpg", "@eaDir/0.jpg/x.jpg")
    said = r"4 images found; passed over: 1 \.mp4, 2 \.txt, 1 file without suffix, 1 hidden file, 1 hidden folder$"
    with pytest.warns(UserWarning, match=said):
        list_sightings(folder)


def test_a_prepared_dataset_is_no_folder_of_people(tmp_path):
    made = prepare("folder", put(tmp_path / "p", "anna/0.jpg", "anna/1.jpg"), tmp_path, test_share=0)
    refused("folder is a prepared dataset; open it", prepare, "folder", made, tmp_path / "data")


def test_the_root_may_lie_among_the_pictures(tmp_path):
    folder = put(tmp_path / "p", "anna/0.jpg", "anna/1.jpg", "bob/0.jpg", "bob/1.jpg")
    made = prepare("folder", folder, folder)
    with pytest.warns(UserWarning, match="passed over: 1 prepared dataset"):
        assert prepare("folder", folder, folder) == made


@pytest.mark.parametrize("suffix", sorted({*SUFFIXES, ".jfif", ".pjpeg", ".ppm", ".pgm"}))
def test_every_suffix_that_is_read(suffix, tmp_path):
    kinds = {".png": "PNG", ".bmp": "BMP", ".dib": "DIB", ".webp": "WEBP", ".tif": "TIFF", ".gif": "GIF"}
    kinds |= dict.fromkeys((".ppm", ".pgm", ".pbm", ".pnm"), "PPM") | {".tiff": "TIFF"}
    content = picture(kinds.get(suffix, "JPEG"))
    folder = put(tmp_path / "p", *(f"{who}/{k}{suffix.upper()}" for who in "ab" for k in range(2)), content=content)
    assert len(open_dataset(prepare("folder", folder, tmp_path / "data", test_share=1), "test")) == 4


@pytest.mark.parametrize("suffix", [".heic", ".AVIF", ".hif", ".jxl", ".cr3", ".tga", ".psd"])
def test_pictures_of_other_formats_are_refused_by_name(suffix, tmp_path):
    folder = put(tmp_path / "p", "a/0.jpg", f"a/1{suffix}", f"a/2{suffix}")
    refused(rf"a/1{suffix} is of a format that is not read; .*\(2 of", prepare, "folder", folder, tmp_path / "data")


NAMES = ["山田\u3000太郎", "Ana\u00a0Luz", "9.30\u202fAM", "می\u200cخواهم", "👩\u200d🚀", "\u202aabc", "\U000323b0"]


def test_names_in_all_scripts_are_plain_text(tmp_path):
    folder = put(tmp_path / "p", *(f"{who}/{who} {k}.jpg" for who in NAMES for k in range(2)))
    made = prepare("folder", folder, tmp_path / "data")
    assert set(json.loads((made / "people.json").read_text("utf-8"))["people"]) == set(NAMES)


@pytest.mark.parametrize("bad", ["a\nb", "a\tb", "a\x7f", "a\x85", "a\u2028b", "a\u2029b", "\udcff"])
def test_names_that_are_no_plain_text_are_counted(bad, tmp_path):
    folder = put(tmp_path / "p", "a/0.jpg", "a/1.jpg", f"a/{bad}.jpg", f"{bad}/0.jpg")
    refused(r"2 names that are not plain text \(first: '.*'\); rename them", prepare, "folder", folder, tmp_path / "d")


def test_a_folder_is_known_by_its_pictures(tmp_path):
    """BMPs of one size are of equal length; and the folder may be renamed."""
    names = [f"{who}/{k}.bmp" for who in "ab" for k in range(2)]
    folder = put(tmp_path / "p", *names, content=picture("BMP", 1))
    made = prepare("folder", folder, tmp_path / "data")
    moved = folder.rename(tmp_path / "q")
    assert prepare("folder", moved, tmp_path / "data") == made
    put(moved, names[0], content=picture("BMP", 2))
    refused("made from a different archive than is there now; delete it", prepare, "folder", moved, tmp_path / "data")


@pytest.mark.parametrize("pattern", [5, b"(?P<person>.)", "(?P<person>a{99999999999})"])
def test_patterns_that_are_none(pattern, tmp_path):
    folder = put(tmp_path / "p", "a/0.jpg")
    refused("is not a regular expression", prepare, "folder", folder, tmp_path / "d", pattern=pattern)


# EXIF -----------------------------------------------------------------------------------------------------------


def with_exif(*entries: bytes, tail: bytes = b"") -> bytes:
    """A JPEG of 4 x 8 pixels with these EXIF entries, 12 bytes each."""
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4) + tail
    data = picture()
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:]


def orientation(value: int) -> bytes:
    return struct.pack("<HHIHH", 0x112, 3, 1, value, 0)


RESOLUTION_AS_TEXT = struct.pack("<HHI4s", 282, 2, 3, b"72\0\0")
FAR_AWAY = struct.pack("<HHII", 305, 2, 900, 1 << 30)


@pytest.mark.parametrize(
    ("data", "turned"),
    [
        (with_exif(orientation(6), RESOLUTION_AS_TEXT), True),
        (with_exif(orientation(8), FAR_AWAY), True),
        (with_exif(orientation(6), struct.pack("<HHII", 0x8769, 4, 1, 1 << 20)), True),
        (with_exif(orientation(6)) .replace(b"II*\0", b"XX*\0"), False),
        (with_exif(RESOLUTION_AS_TEXT), False),
        (with_exif(orientation(0)), False),
        (with_exif(orientation(9)), False),
        (with_exif(orientation(65535)), False),
        (with_exif(struct.pack("<HHI4s", 0x112, 2, 2, b"6\0\0\0")), False),
        (with_exif(orientation(6))[:24] + b"\xff\xff" + with_exif(orientation(6))[26:], False),
    ],
    ids=["resolution as text", "past the end", "sub-table past the end", "no byte order", "upright", "0", "9", "65535",
         "orientation as text", "offset past the end"],
)  # fmt: skip
def test_pixels_decode_whatever_the_exif_says(data, turned, tmp_path):
    (tmp_path / "a.jpg").write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, about EXIF
        assert images.decode(tmp_path / "a.jpg").shape == ((3, 4, 8) if turned else (3, 8, 4))
        jpeg = to_jpeg(data, "a.jpg")
    assert Image.open(io.BytesIO(jpeg)).size == ((8, 4) if turned else (4, 8))
    assert turned or jpeg is data


def test_what_else_a_picture_carries_is_left_behind():
    """A comment longer than a JPEG has room for."""
    jpeg = to_jpeg(picture("GIF", comment=b"x" * 200_000), "a.gif")
    assert "comment" not in Image.open(io.BytesIO(jpeg)).info


@pytest.mark.parametrize("value", range(1, 9))
def test_orientations_are_pillow_s(value, tmp_path):
    from PIL import ImageOps

    data = with_exif(orientation(value))
    (tmp_path / "a.jpg").write_bytes(data)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    assert np.array_equal(images.decode(tmp_path / "a.jpg").permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize("error", [TypeError, struct.error, AttributeError, KeyError, RecursionError, OverflowError])
def test_whatever_a_decoder_raises_names_the_file(error, tmp_path, monkeypatch):
    data = picture()
    (tmp_path / "a.jpg").write_bytes(data)

    def fail(*_, **__):
        raise error("deep inside")

    monkeypatch.setattr(Image.Image, "load", fail)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)
    refused("a.jpg: not an image that decodes .*deep inside", images.decode, tmp_path / "a.jpg")
    refused("a.jpg does not decode", to_jpeg, data, "a.jpg")
