"""20 000 damaged or hostile files: each ends in success or in the library's own error, and writes nowhere else.

Random mutations of good files (bits, bytes, pieces cut, doubled, swapped, numbers at limits) from a fixed seed, so
that a failure can be repeated. Code that a file would run leaves a trace that is looked for.
"""

import io
import os
import pickle
import random
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from alignedreid_lib import model, runs
from alignedreid_lib.datasets import Partitions, cuhk03_split, open_dataset, prepare
from alignedreid_lib.datasets.jpegs import to_jpeg
from alignedreid_lib.datasets.partitions import format_name, make_partitions, parse_name
from alignedreid_lib.datasets.pickles import load_pickle, save_pickle
from alignedreid_lib.datasets.zip_reading import open_archive
from alignedreid_lib.errors import InputError
from alignedreid_lib.synthetic import make_archive

LIMITS = [
    b"\x00",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"\xff\xff\xff\xff",
    b"\x00\x00\x00\x80",
    b"../",
    b"/",
    b"\\",
    b"\n",
    b",",
]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # hundreds, of what is passed over


def mutate(good: bytes, rng: random.Random, most: int = 6) -> bytes:
    """One to `most` small changes."""
    data = bytearray(good)
    for _ in range(rng.randint(1, most)):
        place = rng.randrange(len(data) + 1) if data else 0
        length = min(rng.choice((1, 2, 4, 16, 200)), len(data) - place)
        what = rng.randrange(7)
        if what == 0 and place < len(data):
            data[place] ^= 1 << rng.randrange(8)
        elif what == 1:
            data[place : place + length] = rng.randbytes(length)
        elif what == 2:
            del data[place : place + length]
        elif what == 3:
            data[place:place] = data[place : place + length]
        elif what == 4:
            piece = rng.choice(LIMITS)
            data[place : place + len(piece)] = piece
        elif what == 5:
            source = rng.randrange(len(data) + 1)
            data[place : place + length] = data[source : source + length]
        elif what == 6 and rng.random() < 0.2:
            del data[place:]
    return bytes(data)


class Trace:
    """Its pickle makes a folder where it is run."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def place(tmp_path):
    """A folder with a file in it that is there, as it was, when the test is over; and nothing else beside `work`."""
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "work").mkdir()
    yield tmp_path / "work"
    assert (tmp_path / "mine.txt").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.txt", "work"], "something was written outside"


def survive(call, cases: int, seed: int, *goods: bytes, most: int = 6) -> None:
    """Every mutation is taken, or refused in one line; some are, and some are."""
    rng = random.Random(seed)
    taken = 0
    for number in range(cases):
        data = mutate(rng.choice(goods), rng, most)
        try:
            call(data)
            taken += 1
        except InputError as error:
            assert "\n" not in str(error), f"case {number}: {error}"
        except Exception as error:
            raise AssertionError(f"case {number} of seed {seed} escaped: {type(error).__name__}: {error}") from error
    assert 0 < taken < cases, "the mutations are all harmless, or all deadly"


def picture(kind: str = "JPEG", **settings) -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (12, 8, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, kind, **settings)
    return buffer.getvalue()


def test_pickles(place):
    names = [format_name(person, camera, 0) for person in range(1, 5) for camera in (1, 2)]
    parts = make_partitions(names[:4], 1, names[4:5], names[5:6], names[6:])
    content = {field: getattr(parts, field) for field in parts.__dataclass_fields__}
    arrays = {
        "trainval_im_names": np.array(names),
        "test_marks": np.arange(3),
        "x": (np.int64(3), np.array(["a"], object)),
    }
    trap = {"trainval_im_names": [Trace(place / "ran")]}
    goods = [pickle.dumps(value, protocol) for value in (content, arrays, trap) for protocol in (0, 1, 2, 4)]
    path = place / "partitions.pkl"

    def load(data: bytes) -> None:
        path.write_bytes(data)
        value = load_pickle(path)
        assert type(value) in (dict, list, tuple, str, int, bool)
        Partitions.load(path)

    survive(load, 8000, 1, *goods)
    assert not (place / "ran").exists(), "a pickle has run"


def test_split_files(place):
    lists = {key: [format_name(1, 0, k)] for k, key in enumerate(cuhk03_split.LISTS)}
    split = dict.fromkeys(cuhk03_split.KINDS, lists)
    save_pickle(split, place / "good.pkl")
    good = (place / "good.pkl").read_bytes()

    def load(data: bytes) -> None:
        (place / "split.pkl").write_bytes(data)
        cuhk03_split.load_split(place / "split.pkl")

    survive(load, 1500, 2, good)


def small_release(rng: random.Random, compression: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for person in range(1, 5):
            for camera in (1, 2):
                for folder in ["bounding_box_train"] if person < 3 else ["bounding_box_test", "query", "gt_bbox"]:
                    archive.writestr(f"m/{folder}/{person:04d}_c{camera}s1_000001_00.jpg", picture())
    return buffer.getvalue()


def test_release_archives(place):
    rng = random.Random(0)
    goods = [small_release(rng, kind) for kind in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)]
    path = place / "m.zip"

    def use(data: bytes) -> None:
        path.write_bytes(data)
        with pytest.raises(InputError):
            prepare("dukemtmc", path, place / "data", num_val_ids=1)
        assert not (place / "data").exists(), "something half-made was left"
        made = prepare("market1501", path, place / "data", num_val_ids=1)
        for part in ("trainval", "test"):
            open_dataset(made, part)
        shutil.rmtree(place / "data")

    survive(use, 1500, 3, *goods)


def test_zip_directories(place):
    """The end of a zip, where the entries' names, sizes and places are written, is hit on purpose."""
    good = small_release(random.Random(0), zipfile.ZIP_DEFLATED)
    start = good.index(b"PK\x01\x02")
    path = place / "m.zip"

    def use(data: bytes) -> None:
        path.write_bytes(good[:start] + data)
        with open_archive(path) as archive:
            for entry in archive.infolist():
                assert ".." not in entry.filename.split("/")
        prepare("market1501", path, place / "data", num_val_ids=1)
        shutil.rmtree(place / "data")

    survive(use, 1500, 4, good[start:], most=3)


def test_tables(place):
    (place / "a.jpg").write_bytes(picture())
    (place / "b.jpg").write_bytes(picture())
    (place / "c.jpg").write_bytes(picture())
    good = b'path,person,camera\na.jpg,one,1\nb.jpg,one,2\n"c.jpg","t w o",1\n'
    good2 = "path,person\na.jpg,ä\nb.jpg,李\nc.jpg,李\n".encode()

    def use(data: bytes) -> None:
        (place / "t.csv").write_bytes(data)
        prepare("folder", place / "t.csv", place / "data", test_share=1)
        shutil.rmtree(place / "data")

    good3 = good.replace(b",", b";").decode().encode("utf-16")

    survive(use, 2000, 5, good, good2, good3)


def test_names():
    rng = random.Random(6)
    good = format_name(12, 3, 4).encode()
    for _ in range(2500):
        name = mutate(good, rng).decode("latin1")
        try:
            person, camera = parse_name(name)
        except InputError as error:
            assert "\n" not in str(error)
        else:
            assert 0 <= person < 10**8 and 0 <= camera < 10**4 and "/" not in name and "\\" not in name


def test_pictures():
    goods = [picture(), picture(progressive=True), picture("PNG"), picture("BMP"), picture("WEBP"), picture("GIF")]
    goods += [picture("TIFF"), picture("TIFF", compression="tiff_lzw"), picture("PPM")]
    exif = Image.Exif()
    exif[0x0112], exif[0x011A], exif[0x0131] = 6, 72.0, "a camera"
    goods += [picture(kind, exif=exif) for kind in ("JPEG", "PNG", "WEBP")]

    def use(data: bytes) -> None:
        opened = Image.open(io.BytesIO(to_jpeg(data, "it")))
        assert opened.format == "JPEG" and opened.mode in ("RGB", "L")
        opened.load()

    survive(use, 2000, 7, *goods)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_weights_and_checkpoints(place):
    network = torch.nn.Sequential(torch.nn.Linear(3, 2))
    target = torch.nn.Sequential(torch.nn.Linear(3, 2))
    goods = []
    checkpoint = {"format": runs.CHECKPOINT_FORMAT, "model": network.state_dict(), "metrics": [{"loss": 1.0}]}
    for content in (network.state_dict(), checkpoint, [Trace(place / "ran")]):
        for zipped in (True, False):
            buffer = io.BytesIO()
            torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
            goods.append(buffer.getvalue())

    def load(data: bytes) -> None:
        (place / "checkpoint.pt").write_bytes(data)
        try:
            model.load_weights(target, place / "checkpoint.pt")
        except InputError as error:
            assert "\n" not in str(error)
        runs.load_checkpoint(place)

    survive(load, 800, 8, *goods)
    assert not (place / "ran").exists(), "a weights file has run"


def test_matlab_files(place, tmp_path_factory):
    """Mutated MATLAB files inside a good zip; fewer, since each is a whole dataset."""
    folder = tmp_path_factory.mktemp("mat")
    source = make_archive(folder / "cuhk03_release.zip", "cuhk03", 5, 2)
    split = source.with_name("re_ranking_train_test_split.pkl")
    with zipfile.ZipFile(source) as archive:
        mat = archive.read("cuhk03_release/cuhk-03.mat")
    path = place / "c.zip"

    def use(data: bytes) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            archive.writestr("cuhk03_release/cuhk-03.mat", data)
        prepare("cuhk03", path, place / "data", split, num_val_ids=1)
        shutil.rmtree(place / "data")

    survive(use, 200, 9, mat)
