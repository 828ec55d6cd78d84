"""Partitions: the validation split against the original's, and pickles that are read without being run."""

import gzip
import json
import os
import pickle
import pickletools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from alignedreid_lib.batches import images
from alignedreid_lib.datasets import Partitions, combine, open_dataset
from alignedreid_lib.datasets.partitions import format_name, make_partitions, parse_name, split_validation
from alignedreid_lib.datasets.pickles import load_pickle, save_pickle
from alignedreid_lib.errors import InputError

RECORDED = json.loads(gzip.decompress((Path(__file__).parent / "data" / "transforms.json.gz").read_bytes()))


def test_the_copy_is_the_recording(shared):
    for key, recorded in RECORDED.items():
        assert recorded == json.loads((shared / "fixtures" / f"{key}.json").read_text())


@pytest.mark.parametrize("example", RECORDED["partition"])
def test_split_equals_the_originals(example):
    recorded = RECORDED["partition"][example]
    train, query, gallery = split_validation(recorded["trainval_im_names"], recorded["num_val_ids"])
    assert train == recorded["train_im_names"]
    assert query == recorded["val_query_im_names"]
    assert gallery == recorded["val_gallery_im_names"]


@st.composite
def sightings(draw) -> list[str]:
    """Names of a few people, each seen by one to three cameras one to three times."""
    names = []
    for person in draw(st.lists(st.integers(0, 10**8 - 1), min_size=2, max_size=8, unique=True)):
        for camera in draw(st.lists(st.integers(0, 5), min_size=1, max_size=3, unique=True)):
            names += [format_name(person, camera, k) for k in range(draw(st.integers(1, 3)))]
    return draw(st.permutations(names))


@settings(deadline=None)  # other work on the machine is no failure
@given(sightings(), st.data())
def test_split_invariants(names, data):
    cameras: dict[int, set[int]] = {}
    for person, camera in map(parse_name, names):
        cameras.setdefault(person, set()).add(camera)
    possible = sum(len(seen) > 1 for seen in cameras.values())
    most = min(possible, len(cameras) - 1)
    num_ids = data.draw(st.integers(0, most))
    train, query, gallery = split_validation(names, num_ids)
    assert Counter(train + query + gallery) == Counter(names)
    train_ids, query_ids = {parse_name(name)[0] for name in train}, {parse_name(name)[0] for name in query}
    assert len(query_ids) == num_ids and query_ids == {parse_name(name)[0] for name in gallery}
    assert not train_ids & query_ids
    assert all(len(cameras[person]) > 1 for person in query_ids)
    answers = [parse_name(name) for name in gallery]
    for person, camera in map(parse_name, query):
        assert any(other == person and seen != camera for other, seen in answers)
    per_camera = Counter(map(parse_name, query))
    assert all(count == 1 for count in per_camera.values())
    if most < len(cameras):
        with pytest.raises(InputError, match="num_val_ids"):
            split_validation(names, most + 1)


def test_one_query_moves_and_answers_the_others():
    # One picture in each of three cameras: all are queries, nobody answers the first, so it becomes gallery.
    names = [format_name(1, camera, 0) for camera in (1, 2, 3)] + [format_name(2, 1, 0)]
    _, query, gallery = split_validation(names, 1)
    assert sorted(query) == names[1:3] and gallery == names[:1]


def test_no_validation_ids_leave_train_as_trainval():
    names = [format_name(person, camera, 0) for person in (7, 3) for camera in (1, 2)]
    partitions = make_partitions(names, 0, names[:1], [], names[1:2])
    assert partitions.train_im_names == partitions.trainval_im_names == names
    assert partitions.train_ids2labels == {3: 0, 7: 1}
    assert partitions.val_im_names == partitions.val_marks == []


@pytest.mark.parametrize(
    "name", ["0001_c1s1_000001_00.jpg", "00000001_0001_00000000.png", "../00000001_0001_00000000.jpg"]
)
def test_names_of_another_layout_are_refused(name):
    with pytest.raises(InputError, match="unified layout"):
        parse_name(name)


@pytest.fixture
def partitions() -> Partitions:
    names = [format_name(person, camera, 0) for person in range(1, 5) for camera in (1, 2)]
    return make_partitions(names[:4], 1, names[4:5], names[5:6], names[6:])


def test_save_writes_plain_protocol_2(partitions, tmp_path):
    path = tmp_path / "partitions.pkl"
    partitions.save(path)
    assert Partitions.load(path) == partitions
    assert os.listdir(tmp_path) == ["partitions.pkl"]
    content = pickle.loads(path.read_bytes())
    keys = "trainval_im_names trainval_ids2labels train_im_names train_ids2labels"
    assert set(content) == set(f"{keys} val_im_names val_marks test_im_names test_marks".split())
    operations = {operation.name for operation, _, _ in pickletools.genops(path.read_bytes())}
    assert max(operation.proto for operation, _, _ in pickletools.genops(path.read_bytes())) == 2
    assert not operations & {"GLOBAL", "REDUCE", "BUILD", "NEWOBJ"}


def test_a_failing_save_leaves_the_old_file(partitions, tmp_path, monkeypatch):
    path = tmp_path / "partitions.pkl"
    partitions.save(path)
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("no space")))
    with pytest.raises(OSError):
        Partitions(test_im_names=[], test_marks=[]).save(path)
    assert Partitions.load(path) == partitions
    assert os.listdir(tmp_path) == ["partitions.pkl"]


def python2_text(text: bytes) -> bytes:
    return b"U" + bytes([len(text)]) + text


def python2_scalar(code: bytes, order: bytes, size: bytes, data: bytes) -> bytes:
    """numpy's scalar as Python 2 pickled it: text is SHORT_BINSTRING, there is no such thing as bytes."""
    dtype = b"cnumpy\ndtype\n" + python2_text(code) + b"K\x00K\x01\x87R"
    dtype += b"(K\x03" + python2_text(order) + b"NNN" + size + b"tb"
    return b"cnumpy.core.multiarray\nscalar\n" + dtype + python2_text(data) + b"\x86R"


def python2_partitions(names: list[str]) -> bytes:
    """A partitions.pkl of two names, written by hand as Python 2 did: numpy text, numpy ids, an object array."""
    text = [python2_scalar(b"S26", b"|", b"K\x1aK\x01K\x00", name.encode()) for name in names]
    ids = [
        python2_scalar(b"i8", b"<", b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00", person.to_bytes(8, "little"))
        for person in (2, 300)
    ]
    array = (  # an object array of the two names, as numpy.array(names, dtype=object) was pickled
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x02\x85cnumpy\ndtype\n"
        b"U\x02O8K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK?tb\x89](" + b"".join(text) + b"etb"
    )
    return (
        b"\x80\x02}("
        + (python2_text(b"trainval_im_names") + b"](" + b"".join(text) + b"e")
        + (python2_text(b"trainval_ids2labels") + b"}(" + ids[0] + b"K\x00" + ids[1] + b"K\x01" + b"u")
        + (python2_text(b"test_im_names") + array)
        + (python2_text(b"test_marks") + b"](K\x00K\x01e")
        + b"u."
    )


def test_python_2_files_load(tmp_path):
    names = [format_name(person, 1, 0) for person in (2, 300)]
    path = tmp_path / "partitions.pkl"
    path.write_bytes(python2_partitions(names))
    loaded = Partitions.load(path)
    assert loaded.trainval_im_names == loaded.test_im_names == names
    assert loaded.trainval_ids2labels == {2: 0, 300: 1}
    assert all(type(value) is int for value in loaded.trainval_ids2labels)
    assert loaded.train_im_names is None


def test_a_folder_that_the_original_transformed_opens_as_it_is(tmp_path):
    """No prepared.json, and a pickle of Python 2; nothing is written into it."""
    names = [format_name(person, 1, 0) for person in (2, 300)]
    (tmp_path / "images").mkdir()
    for name in names:
        Image.new("RGB", (4, 8)).save(tmp_path / "images" / name)
    (tmp_path / "partitions.pkl").write_bytes(python2_partitions(names))
    before = sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*"))
    trainval, test = open_dataset(tmp_path, "trainval"), open_dataset(tmp_path, "test")
    assert [path.name for path in trainval.paths] == [path.name for path in test.paths] == names
    assert trainval.labels.tolist() == [0, 1] and test.marks.tolist() == [0, 1] and trainval.ids.tolist() == [2, 300]
    assert trainval.cameras_known and images.decode(test.paths[0]).shape == (3, 8, 4)
    assert combine([tmp_path], tmp_path.parent / "new").name == "combined"
    assert before == sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*"))


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
@pytest.mark.parametrize(
    "array",
    [np.array(["a", "bcd"]), np.array([b"a", b"bcd"]), np.array(["x", "y"], object), np.arange(3), np.int16([5, -1])],
    ids=["text", "bytes", "object", "int64", "int16"],
)
def test_numpy_arrays_become_lists(array, protocol, tmp_path):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"key": (array, array[0])}, protocol))
    expected = [value.decode() if isinstance(value, bytes) else value for value in array.tolist()]
    assert load_pickle(tmp_path / "a.pkl") == {"key": (expected, expected[0])}


class Evil:
    """Creates a file when unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_asks_for_a_class_is_not_run(protocol, tmp_path):
    path = tmp_path / "partitions.pkl"
    path.write_bytes(pickle.dumps({"trainval_im_names": [Evil(tmp_path / "ran")]}, protocol))
    with pytest.raises(InputError, match=r"partitions\.pkl refers to (posix|nt|os)\.mkdir") as refused:
        Partitions.load(path)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"c__builtin__\neval\n(S'1'\ntR.",
        b"cnumpy\nfromfile\n(S'x'\ntR.",
        b"cnumpy.core.multiarray\nload\n.",
        b"cnumpy\nndarray\n}(S'__setstate__'\nI1\nub.",  # state for a class
        b"cnumpy.core.multiarray\nscalar\n(N}(S'__new__'\nI1\nutb.",
        b"cnumpy\ndtype\n(S'V8'\ntR.",
        b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(S'O8'\ntRS'12345678'\ntR.",  # bytes as an object's address
        pickle.dumps({1, 2}),
        pickle.dumps([1.5]),
        pickle.dumps(None),
        pickle.dumps(np.zeros((2, 2))),
        pickle.dumps(Counter("a")),
        b"(lp0\ng0\na.",  # a list inside itself
        b"\x80\x02",
        b"",
        b"PK\x03\x04 no pickle at all",
    ],
)
def test_other_content_is_refused(content, tmp_path):
    path = tmp_path / "split.pkl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"split\.pkl") as refused:
        load_pickle(path)
    assert "\n" not in str(refused.value)


@settings(deadline=None)  # other work on the machine is no failure
@given(st.binary(max_size=60))
def test_any_bytes_are_plain_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "fuzz.pkl"
    path.write_bytes(content)
    try:
        value = load_pickle(path)
    except InputError:
        return
    assert type(value) in (dict, list, tuple, str, int, bool)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.pkl does not exist"):
        Partitions.load(tmp_path / "nowhere.pkl")


NAME = format_name(1, 1, 0)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([], "contains no partitions"),
        ({"other": 1}, "contains no partitions"),
        ({"test_im_names": [NAME], "test_marks": []}, "not of one length"),
        ({"test_im_names": [NAME]}, "not of one length"),
        ({"test_im_names": [NAME], "test_marks": [3]}, "mark"),
        ({"test_im_names": NAME, "test_marks": [0]}, "test_im_names is not a list of str"),
        ({"test_im_names": [1], "test_marks": [0]}, "test_im_names is not a list of str"),
        ({"train_im_names": [NAME]}, "go together"),
        ({"train_im_names": [NAME], "train_ids2labels": {2: 0}}, "no label for id 1"),
        ({"train_im_names": ["../x.jpg"], "train_ids2labels": {}}, "unified layout"),
        ({"test_im_names": ["../x.jpg"], "test_marks": [0]}, "unified layout"),
    ],
)
def test_pickles_that_are_no_partitions(content, says, tmp_path):
    save_pickle(content, tmp_path / "p.pkl")
    with pytest.raises(InputError, match=says) as refused:
        Partitions.load(tmp_path / "p.pkl")
    assert "p.pkl" in str(refused.value)


def test_tuples_of_tuples_do_not_hang(tmp_path):
    """Twice the same inside the same, 60 times: as a key it would take 2**60 steps to hash, to copy as many."""
    nested = "x"
    for _ in range(60):
        nested = (nested, nested)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"key": nested}, 2))
    loaded = load_pickle(tmp_path / "a.pkl")["key"]
    assert loaded[0] is loaded[1]
    content = pickle.dumps(nested, 2)
    (tmp_path / "b.pkl").write_bytes(b"\x80\x02}" + content[2:-1] + b"K\x01s.")
    with pytest.raises(InputError, match="UnpicklingError"):
        load_pickle(tmp_path / "b.pkl")


def test_a_memo_index_of_billions_costs_nothing(tmp_path):
    (tmp_path / "a.pkl").write_bytes(b"\x80\x02]r\xff\xff\xff\x7f.")
    assert load_pickle(tmp_path / "a.pkl") == []
