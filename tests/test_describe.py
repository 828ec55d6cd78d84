"""A dataset's card, against counts done by hand."""

import shutil

import numpy as np
import pytest
from PIL import Image

from alignedreid_lib import figures
from alignedreid_lib.datasets import Dataset, Partitions, describe, open_dataset
from alignedreid_lib.datasets.describe import PUBLISHED
from alignedreid_lib.errors import InputError


def test_a_card_by_hand(tiny_data):
    card = describe(open_dataset(tiny_data / "tiny", "trainval"))
    assert [(count.what, count.found, count.published) for count in card.counts] == [
        ("ids", 6, None),
        ("images", 24, None),
    ]
    assert card.images_per_id == (4, 4, 4)
    assert card.ids_per_camera == {0: 6, 1: 6} and card.camera_pairs.tolist() == [[6, 6], [6, 6]]
    assert card.heights == (32, 32, 32) and card.widths == (16, 16, 16)
    assert card.duplicates == [] and card.unreadable == [] and card.as_published is None
    test = describe(open_dataset(tiny_data / "tiny", "test"))
    assert {c.what: c.found for c in test.counts} == {
        "ids": 3,
        "images": 12,
        "query": 3,
        "gallery": 9,
        "multi-query": 0,
    }
    assert str(test).splitlines()[:4] == [
        "| tiny, test                           | found      | published   |",
        "|:-------------------------------------|:-----------|:------------|",
        "| ids                                  | 3          | -           |",
        "| images                               | 12         | -           |",
    ]


def test_duplicates_and_unreadable_files_are_listed(tiny_data, tmp_path):
    folder = shutil.copytree(tiny_data / "tiny", tmp_path / "tiny")
    names = sorted(path.name for path in (folder / "images").iterdir())[:4]  # of one person
    shutil.copyfile(folder / "images" / names[0], folder / "images" / names[1])
    (folder / "images" / names[2]).write_bytes(b"no picture")
    Image.new("RGB", (20, 60)).save(folder / "images" / names[3])
    card = describe(open_dataset(folder, "trainval"))
    assert card.duplicates == [names[:2]] and [name for name, _ in card.unreadable] == [names[2]]
    assert card.heights == (32, 32, 60) and card.widths == (16, 16, 20)
    assert f"1: {names[0]} = {names[1]}" in str(card) and f"1: {names[2]}" in str(card)


def test_counts_are_compared(tmp_path, monkeypatch):
    monkeypatch.setitem(PUBLISHED, ("market1501", "trainval"), {"ids": 2, "images": 3})
    picture = tmp_path / "a.jpg"
    Image.new("RGB", (4, 8)).save(picture)

    def card(ids):
        numbers = np.array(ids)
        return describe(
            Dataset(tmp_path / "market1501", "trainval", [picture] * len(ids), numbers, numbers, numbers, None)
        )

    assert card([1, 2, 2]).as_published and not card([1, 2]).as_published
    assert card([0, 1, 2]).counts[0].found == 2, "distractors are nobody"
    assert [group for group in card([1, 2, 2]).duplicates] == [["a.jpg"] * 3]


def test_published_counts_are_the_split_s():
    """CUHK03's published counts are those of the split that the library ships."""
    from alignedreid_lib.datasets.cuhk03_split import new_protocol

    for kind, lists in new_protocol().items():
        train, query, gallery = lists.values()
        assert PUBLISHED[kind, "trainval"] == {"ids": len({name[:8] for name in train}), "images": len(train)}
        expected = {"ids": len({name[:8] for name in query}), "query": len(query), "gallery": len(gallery)}
        assert PUBLISHED[kind, "test"] == expected


def test_a_card_as_a_figure(tiny_data):
    dataset = open_dataset(tiny_data / "tiny", "test")
    figure = figures.dataset_card(dataset, describe(dataset))
    assert len(figure.axes) >= 3


def test_nothing_to_describe(tiny_data, tmp_path):
    (tmp_path / "d" / "images").mkdir(parents=True)
    Partitions(test_im_names=[], test_marks=[]).save(tmp_path / "d" / "partitions.pkl")
    with pytest.raises(InputError, match="no images to describe"):
        describe(open_dataset(tmp_path / "d", "test"))
