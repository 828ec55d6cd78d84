"""The drawn data: archives built like the real ones, the same from a seed, and people apart from their boxes."""

import io
import os
import pickle
import re
import struct
import zipfile
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from alignedreid_lib.errors import InputError
from alignedreid_lib.synthetic import (
    detector_box,
    drawn_archives,
    make_archive,
    packing,
    pedestrians,
    sample_cameras,
    take,
)
from alignedreid_lib.synthetic.packing import Shot
from alignedreid_lib.synthetic.painting import PATTERNS_KNOWN, Box, Canvas, Fabric
from alignedreid_lib.synthetic.pedestrians import TRUE_BOX, Camera, Person, View, draw

TRAIN, TEST = 8, 6
FOLDERS = ("bounding_box_train", "bounding_box_test", "query", "gt_bbox")


@pytest.fixture(scope="module")
def market(tmp_path_factory) -> Path:
    return make_archive(tmp_path_factory.mktemp("raw") / "Market-1501-v15.09.15.zip", "market1501", TRAIN, TEST)


@pytest.fixture(scope="module")
def duke(tmp_path_factory) -> Path:
    return make_archive(tmp_path_factory.mktemp("raw") / "DukeMTMC-reID.zip", "dukemtmc", TRAIN, TEST)


@pytest.fixture(scope="module")
def cuhk(tmp_path_factory) -> Path:
    return make_archive(tmp_path_factory.mktemp("raw") / "cuhk03_release.zip", "cuhk03", TRAIN, TEST)


def entries(path: Path, folder: str) -> list[str]:
    """The pictures of a folder inside an archive."""
    with zipfile.ZipFile(path) as archive:
        return [
            Path(name).name for name in archive.namelist() if Path(name).parent.name == folder and name.endswith(".jpg")
        ]


def keys(names: list[str]) -> set[tuple[str, str]]:
    """(id, camera) of names such as 0012_c3..."""
    return {(name.split("_")[0], name.split("_")[1][:2]) for name in names}


# ------------------------------------------------------------------------------------------------ archives


def test_market1501_has_the_folders_names_and_pests_of_the_release(market):
    root = "Market-1501-v15.09.15/"
    with zipfile.ZipFile(market) as archive:
        names = archive.namelist()
        assert archive.testzip() is None
    assert all(name.startswith(root) for name in names) and len(set(names)) == len(names)
    assert all(f"{root}{folder}/Thumbs.db" in names for folder in (*FOLDERS, "gt_query"))
    assert f"{root}readme.txt" in names
    for folder in FOLDERS:
        pictures = entries(market, folder)
        assert pictures and all(
            re.fullmatch(r"(-1|\d{4})_c[1-6]s[1-3]_\d{6}_\d\d(\.jpg){1,2}", name) for name in pictures
        )


def test_market1501_ids_are_interleaved_disjoint_and_complete(market):
    train = {name[:4] for name in entries(market, "bounding_box_train")}
    query = {name[:4] for name in entries(market, "query")}
    gallery = {name.split("_")[0] for name in entries(market, "bounding_box_test")}
    assert len(train) == TRAIN and len(query) == TEST and not train & query
    assert train | query == {f"{i:04d}" for i in range(1, TRAIN + TEST + 1)}
    assert gallery == query | {"0000", "-1"}, "the gallery has the queries' people, distractors and junk"
    assert max(train) > min(query) and max(query) > min(train)


def test_market1501_queries_are_one_a_person_and_camera_and_all_can_be_found(market):
    query, gallery, boxes = (entries(market, folder) for folder in ("query", "bounding_box_test", "gt_bbox"))
    assert max(Counter(name[:7] for name in query).values()) == 1
    assert all("_00.jpg" in name for name in query + boxes), "boxes drawn by hand are number 00"
    assert not any("_00.jpg" in name for name in gallery)
    assert keys(query) == {key for key in keys(gallery) if key[0] not in ("0000", "-1")}
    assert min(Counter(person for person, _ in keys(query)).values()) >= 2, "another camera sees every query"
    assert keys(query) < keys(boxes), "more than queries: people of the training set have gt boxes too"
    assert all(
        count >= 2 for key, count in Counter(name[:7] for name in boxes).items() if (key[:4], key[5:]) in keys(query)
    )


def test_market1501_has_names_with_the_suffix_twice_as_the_release_has(market):
    """All pictures of a test person, and somebody in the gallery who is nobody; none of the training set."""
    doubled = {folder: [name for name in entries(market, folder) if name.endswith(".jpg.jpg")] for folder in FOLDERS}
    assert not doubled["bounding_box_train"] and all(doubled[folder] for folder in FOLDERS[1:])
    (person,) = {name[:4] for name in doubled["query"]}
    for folder in FOLDERS[1:]:
        assert [name for name in entries(market, folder) if name[:4] == person] == [
            name for name in doubled[folder] if name[:4] == person
        ]
    assert {name.split("_")[0] for name in doubled["bounding_box_test"]} == {person, "0000", "-1"}


def test_market1501_good_and_junk_files_name_the_gallery(market):
    gallery = sorted(entries(market, "bounding_box_test"))
    with zipfile.ZipFile(market) as archive:
        for query in entries(market, "query")[:5]:
            found = {}
            for kind in ("good", "junk"):
                content = archive.read(f"Market-1501-v15.09.15/gt_query/{query[:-4]}_{kind}.mat")
                assert content.startswith(b"MATLAB 5.0 MAT-file") and content[124:128] == b"\0\1IM"
                assert len(content) == 136 + struct.unpack("<I", content[132:136])[0]
                count = struct.unpack("<i", content[164:168])[0]
                found[kind] = (
                    [gallery[int(i) - 1] for i in struct.unpack(f"<{count}d", content[-8 * count :])] if count else []
                )
            assert {name for kind in found.values() for name in kind} == {n for n in gallery if n[:4] == query[:4]}
            assert all(name[5:7] == query[5:7] for name in found["junk"])
            assert all(name[5:7] != query[5:7] for name in found["good"])


def test_pictures_are_jpegs_of_128_by_64(market):
    with zipfile.ZipFile(market) as archive:
        for name in [name for name in archive.namelist() if name.endswith(".jpg")][::9]:
            picture = Image.open(io.BytesIO(archive.read(name)))
            assert (picture.format, picture.size, picture.mode) == ("JPEG", (64, 128), "RGB")
            assert np.asarray(picture).std() > 8


def test_dukemtmc_has_the_folders_and_names_of_the_release(duke):
    train, query, gallery = (entries(duke, folder) for folder in ("bounding_box_train", "query", "bounding_box_test"))
    assert all(re.fullmatch(r"\d{4}_c[1-8]_f\d{7}\.jpg", name) for name in train + query + gallery)
    ids = [{name[:4] for name in names} for names in (train, query, gallery)]
    assert len(ids[0]) == TRAIN and len(ids[1]) == TEST and not ids[0] & ids[2] and ids[1] < ids[2]
    assert max(Counter(name[:7] for name in query).values()) == 1
    assert keys(query) < keys(gallery) and min(Counter(person for person, _ in keys(query)).values()) >= 2
    with zipfile.ZipFile(duke) as archive:
        assert all(name.startswith("DukeMTMC-reID/") for name in archive.namelist())


def read_cuhk03(path: Path, folder: Path) -> h5py.File:
    with zipfile.ZipFile(path) as archive:
        assert set(archive.namelist()) == {"cuhk03_release/cuhk-03.mat", "cuhk03_release/readme.txt"}
        return h5py.File(archive.extract("cuhk03_release/cuhk-03.mat", folder))


def cells_of(mat: h5py.File, kind: str) -> dict[tuple[int, int, int], np.ndarray | None]:
    """(pair, person, cell) -> picture [height, width, 3], or None where absent."""
    found = {}
    for pair, reference in enumerate(mat[kind][0]):
        for cell, row in enumerate(mat[reference][()]):
            for person, inner in enumerate(row):
                absent = "MATLAB_empty" in mat[inner].attrs
                found[pair, person, cell] = None if absent else mat[inner][()].transpose(2, 1, 0)
    return found


def test_cuhk03_has_the_structure_of_the_matlab_file(cuhk, tmp_path):
    with read_cuhk03(cuhk, tmp_path) as mat:
        header = Path(mat.filename).read_bytes()[:128]
        assert header.startswith(b"MATLAB 7.3 MAT-file") and header[124:] == b"\0\2IM" and mat.userblock_size == 512
        assert set(mat) == {"#refs#", "detected", "labeled", "testsets"}
        labeled, detected = cells_of(mat, "labeled"), cells_of(mat, "detected")
        sizes = Counter(pair for pair, _, cell in labeled if cell == 0)
        assert len(sizes) == 5 and sum(sizes.values()) == TRAIN + TEST and sizes[0] == max(sizes.values())
        assert labeled.keys() == detected.keys() and len(labeled) == 10 * (TRAIN + TEST)
        both = [key for key in labeled if labeled[key] is not None and detected[key] is not None]
        absent = [sum(picture is None for picture in cells.values()) for cells in (labeled, detected)]
        assert 0 < absent[0] <= absent[1]
        assert all(labeled[key].dtype == np.uint8 and labeled[key].shape[2] == 3 for key in both)
        assert len({labeled[key].shape for key in both}) > 5, "boxes have sizes of their own"
        assert all(labeled[key].shape[0] > labeled[key].shape[1] for key in both), "height first: people stand"
        differing = [not np.array_equal(labeled[key], detected[key]) for key in both]
        assert all(differing), "the detector's boxes are not those drawn by hand"
        for pair, person in {key[:2] for key in labeled}:
            for view in (range(5), range(5, 10)):
                assert sum(detected[pair, person, cell] is not None for cell in view) >= 2
        assert mat["testsets"].shape == (1, 20)
        for reference in mat["testsets"][0]:
            tests = mat[reference][()]
            assert tests.shape == (2, TEST) and all(1 <= person <= sizes[int(pair) - 1] for pair, person in tests.T)


def test_cuhk03_split_beside_the_archive_names_every_picture_once(cuhk, tmp_path):
    split = pickle.loads(cuhk.with_name("re_ranking_train_test_split.pkl").read_bytes())
    assert set(split) == {"detected", "labeled"} and split["detected"] != split["labeled"]
    with read_cuhk03(cuhk, tmp_path) as mat:
        for kind, parts in split.items():
            first, names = 0, []
            cells = cells_of(mat, kind)
            for pair in range(5):
                size = len({person for p, person, _ in cells if p == pair})
                names += [
                    f"{first + person:08d}_{cell // 5:04d}_{cell % 5:08d}.jpg"
                    for (p, person, cell), picture in cells.items()
                    if p == pair and picture is not None
                ]
                first += size
            assert sorted(names) == sorted(name for part in parts.values() for name in part)
            train, query, gallery = (
                {name[:8] for name in parts[f"{part}_im_names"]} for part in ("train", "query", "gallery")
            )
            assert len(train) == TRAIN and len(query) == TEST and query == gallery and not train & query
            assert len(parts["query_im_names"]) == 2 * TEST


@pytest.mark.parametrize("layout", ["market1501", "cuhk03"])
def test_same_seed_same_bytes_whatever_the_number_of_workers(layout, tmp_path):
    archives = [
        make_archive(tmp_path / f"{i}" / "archive.zip", layout, 5, 1, seed=seed, workers=workers)
        for i, (seed, workers) in enumerate([(4, 1), (4, 3), (5, 1)])
    ]
    first, second, other = (path.read_bytes() for path in archives)
    assert first == second and first != other


# ------------------------------------------------------------------------------------- failing and refusing


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"layout": "viper"}, "viper"),
        ({"num_train_ids": 0}, "num_train_ids is 0"),
        ({"num_test_ids": 2.5}, "2.5"),
        ({"num_test_ids": 99_999}, "99999"),
        ({"misalignment": 1.2}, "1.2"),
        ({"misalignment": float("nan")}, "nan"),
        ({"misalignment": "0.3"}, "'0.3'"),
        ({"seed": -1}, "seed is -1"),
        ({"workers": 0}, "workers is 0"),
        ({"num_train_ids": True}, "True"),
    ],
)
def test_impossible_arguments_are_named(arguments, named, tmp_path):
    with pytest.raises(InputError, match=re.escape(named)) as caught:
        make_archive(tmp_path / "new" / "archive.zip", **arguments)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_folder_or_a_file_in_the_way_is_named(tmp_path):
    with pytest.raises(InputError, match="is a folder"):
        make_archive(tmp_path, num_train_ids=5, num_test_ids=1)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match=r"cannot write .*archive\.zip"):
        make_archive(tmp_path / "file" / "archive.zip", num_train_ids=5, num_test_ids=1)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("layout", ["market1501", "cuhk03", "dukemtmc"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_leaves_the_last_archive_and_nothing_half_written(layout, error, tmp_path, monkeypatch):
    path = tmp_path / "archive.zip"
    path.write_text("the last good one")
    calls = []

    def fail(*args):
        calls.append(args)
        if len(calls) > 12:
            raise error
        return draw(*args)

    monkeypatch.setattr(drawn_archives, "draw", fail)
    with pytest.raises(InputError if isinstance(error, OSError) else KeyboardInterrupt):
        make_archive(path, layout, 5, 2, workers=1)
    assert len(calls) == 13
    assert [entry.name for entry in tmp_path.iterdir()] == ["archive.zip"]
    assert path.read_text() == "the last good one"


@pytest.mark.parametrize("layout", ["market1501", "cuhk03"])
def test_an_archive_that_cannot_take_its_place_is_removed(layout, tmp_path, monkeypatch):
    def refuse(path, target):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    monkeypatch.setattr(drawn_archives, "draw", lambda *args: np.zeros((128, 64, 3), np.uint8))
    with pytest.raises(InputError, match="Permission denied"):
        make_archive(tmp_path / "archive.zip", layout, 5, 1, workers=1)
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------------ boxes and people


def test_misalignment_moves_the_box_and_nothing_else():
    cameras = sample_cameras(2, seed=1)
    straight, repeated, gross = (take(Shot(3, 1, 2, box=1), cameras, error, seed=1) for error in (0.0, 0.0, 1.0))
    assert np.array_equal(straight, repeated) and not np.array_equal(straight, gross)
    by_hand = take(Shot(3, 1, 2, box=0), cameras, 1.0, seed=1)
    assert np.array_equal(by_hand, straight), "boxes drawn by hand are right whatever the detector does"


def test_archives_of_other_misalignment_hold_the_same_names_queries_and_people(tmp_path):
    paths = [make_archive(tmp_path / f"{error}.zip", "market1501", 5, 1, error, seed=2) for error in (0, 1)]
    with zipfile.ZipFile(paths[0]) as none, zipfile.ZipFile(paths[1]) as gross:
        assert none.namelist() == gross.namelist()
        same = {name: none.read(name) == gross.read(name) for name in none.namelist() if name.endswith(".jpg")}
    assert all(equal for name, equal in same.items() if "/query/" in name or "/gt_bbox/" in name)
    assert not any(equal for name, equal in same.items() if "/bounding_box_train/" in name)


@given(seed=st.integers(0, 2**31), error=st.floats(0, 1))
@settings(max_examples=200, deadline=None)
def test_a_detector_errs_mostly_up_and_down_and_by_no_more_than_it_is_told(seed, error):
    box = detector_box(np.random.default_rng(seed), error)
    true_middle, middle = TRUE_BOX.top - TRUE_BOX.height / 2, box.top - box.height / 2
    assert abs(middle - true_middle) <= (0.3 + 0.175) * error + 1e-9
    assert abs(box.left + box.width / 2) <= 0.08 * error + 1e-9
    assert 0.35 * TRUE_BOX.height < box.height < 1.25 * TRUE_BOX.height and box.width > 0.2


def test_no_misalignment_is_the_true_box():
    assert detector_box(np.random.default_rng(0), 0.0) == pytest.approx(TRUE_BOX)


def person_alone(person: Person, view: View) -> np.ndarray:
    """Where a picture with the person differs from the one without, [128, 64] bool."""
    with_person, without = (draw(who, view).astype(int) for who in (person, None))
    return np.abs(with_person - without).max(2) > 30


def clear_view(seed: int) -> View:
    rng = np.random.default_rng(seed)
    view = View.sample(rng, Camera.sample(rng))
    return View(**{**vars(view), "obstacle": "none"})


def test_a_person_stands_in_the_true_box_from_head_to_foot():
    for seed in range(12):
        mask = person_alone(Person.sample(np.random.default_rng(seed)), clear_view(seed))
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        assert rows[0] <= 14 and rows[-1] >= 114, "head at the top, feet at the bottom"
        assert 12 <= columns[-1] - columns[0] <= 62
        assert abs(columns.mean() - 31.5) < 8


def test_who_somebody_is_does_not_depend_on_the_view_and_shows_in_every_one():
    assert Person.sample(np.random.default_rng(7)) == Person.sample(np.random.default_rng(7))
    view = clear_view(3)
    pictures = [draw(Person.sample(np.random.default_rng(i)), view).astype(int) for i in range(6)]
    distances = [np.abs(a - b).mean() for i, a in enumerate(pictures) for b in pictures[:i]]
    assert min(distances) > 3


def test_front_side_and_back_show_different_things():
    person = next(
        p
        for p in map(Person.sample, map(np.random.default_rng, range(99)))
        if p.bag == "backpack" and p.bag_colour == (0.68, 0.13, 0.14) and p.top.colour[0] < 0.3
    )
    view = clear_view(5)
    reds = []
    for yaw in (0.0, np.pi / 2, np.pi):
        picture = draw(person, View(**{**vars(view), "yaw": yaw})).astype(int)[30:70]
        reds.append(int(((picture[..., 0] > 1.8 * picture[..., 1]) & (picture[..., 0] > 1.8 * picture[..., 2])).sum()))
    front, side, back = reds
    assert back > side > 0 and back > 3 * front, "a backpack is on the back"


@pytest.mark.parametrize(("turn", "seen"), [(0, True), (0.4, True), (np.pi / 2, False), (np.pi, False), (6.2, True)])
def test_a_print_on_the_chest_is_seen_from_the_front(turn, seen):
    for body in ("lathe", "tube", "blob"):
        pixels = np.zeros((256, 128, 3), np.float32)
        canvas = Canvas(pixels, Box(0, 1, 0.5, 1), 0.0, np.zeros((256, 128), np.float32))
        if body == "lathe":
            canvas.lathe([0.5, 0.9], [0.25, 0.25], [0.1, 0.1], Fabric((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "print"), turn)
        elif body == "tube":
            fabric = Fabric((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "print", middle=0.2)
            canvas.tube((0.25, 0.9), (0.25, 0.5), 0.1, 0.1, fabric, turn)
        else:
            fabric = Fabric((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "print", middle=0.0)
            canvas.blob((0.25, 0.7), (0.1, 0.2), fabric, turn)
        assert bool((pixels[:, 54:74] > 0.5).any()) == seen, body


@pytest.mark.parametrize("pattern", PATTERNS_KNOWN)
def test_every_pattern_shows_two_colours_somewhere_around_the_body(pattern):
    theta, z = np.meshgrid(np.linspace(-np.pi, np.pi, 90), np.linspace(0.5, 0.85, 120))
    colours = Fabric((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), pattern).colours(theta.astype(np.float32), z.astype(np.float32))
    assert colours.shape == (120, 90, 3)
    assert (colours.min(), colours.max()) == ((0, 0) if pattern == "plain" else (0, 1))


def test_bodies_outside_the_canvas_paint_nothing():
    background = np.zeros((256, 128, 3), np.float32)
    canvas = Canvas(background, Box(0, 1, 0.5, 1), 0.3, np.zeros((256, 128), np.float32))
    fabric = Fabric((1.0, 1.0, 1.0))
    canvas.tube((3.0, 3.0), (3.0, 2.0), 0.1, 0.1, fabric)
    canvas.blob((-2.0, 0.5), (0.1, 0.1), fabric)
    canvas.lathe([2.0, 3.0], [0.0, 0.0], [0.1, 0.1], fabric)
    assert not background.any()
    canvas.blob((0.25, 0.5), (0.1, 0.2), fabric)
    rows, columns = np.nonzero(background[..., 0] > 0.3)
    assert (rows.min(), rows.max()) == pytest.approx((77, 178), abs=1)
    assert (columns.min(), columns.max()) == pytest.approx((38, 89), abs=1)


def test_the_library_draws_at_the_size_of_market1501():
    picture = draw(Person.sample(np.random.default_rng(1)), clear_view(1))
    assert picture.shape == (128, 64, 3) and picture.dtype == np.uint8
    assert pedestrians.TRUE_BOX.height == 2 * pedestrians.TRUE_BOX.width
    assert packing.SPLIT_NAME == "re_ranking_train_test_split.pkl"
