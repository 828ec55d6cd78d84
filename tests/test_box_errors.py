"""The study of Market-1501's box errors, on a release of drawn people whose box errors are known."""

import io
import zipfile
from pathlib import Path

import box_errors
import numpy as np
import pytest
import torch
from oracles import average_precision, ranked_list
from PIL import Image

from alignedreid_lib import runs, synthetic
from alignedreid_lib.errors import InputError
from alignedreid_lib.model import AlignedReID
from alignedreid_lib.search.embed import embed
from alignedreid_lib.training import TrainConfig

PEOPLE, CAMERAS = 12, 3


@pytest.fixture(scope="module")
def release(tmp_path_factory) -> Path:
    """Twelve people under three cameras, in a detector's box and in a perfect one; queries are those of camera 1."""
    path = tmp_path_factory.mktemp("release") / "release.zip"
    street = synthetic.sample_cameras(CAMERAS, 0)
    with zipfile.ZipFile(path, "w") as archive:

        def add(folder: str, name: str, person: int, camera: int, box: int) -> None:
            file = io.BytesIO()
            image = synthetic.take(synthetic.Shot(person, camera=camera, moment=0, box=box), street, 0.5, 0)
            Image.fromarray(image).save(file, "PNG")
            archive.writestr(f"Market/{folder}/{name}.jpg", file.getvalue())

        for person in range(PEOPLE):
            for camera in range(CAMERAS):
                name = f"{person + 1:04d}_c{camera + 1}s1_{person:06d}_"
                add("bounding_box_test", name + "01", person, camera, 1)
                add("bounding_box_test", name + "02", person, camera, 2)  # a second detection is not used
                add("gt_bbox", name + "00", person, camera, 0)
                if camera == 0:
                    add("query", name + "00", person, camera, 0)
        add("bounding_box_test", "0000_c1s1_000001_01", 20, 0, 1)  # nobody known
        add("gt_bbox", "0099_c1s1_000001_00", 20, 0, 0)  # not detected
    return path


def test_the_shots_with_both_boxes_are_read(release):
    shots = box_errors.read_shots(release)
    assert len(shots.detected) == len(shots.by_hand) == PEOPLE * CAMERAS
    assert shots.ids.tolist() == np.repeat(np.arange(PEOPLE) + 1, CAMERAS).tolist()
    assert shots.cameras.tolist() == [1, 2, 3] * PEOPLE
    assert (shots.asked == (shots.cameras == 1)).all()
    one = synthetic.Shot(2, camera=1, moment=0, box=1)
    pixels = torch.from_numpy(synthetic.take(one, synthetic.sample_cameras(CAMERAS, 0), 0.5, 0)).permute(2, 0, 1)
    assert torch.equal(shots.detected[2 * CAMERAS + 1], pixels), "the first detected box, RGB"


def test_the_error_a_query_meets(release):
    shots = box_errors.read_shots(release)
    errors = np.arange(len(shots.ids), dtype=float)
    own = box_errors.sizes_of_queries(errors, shots, "detected", "by hand")
    assert own.tolist() == list(range(0, 3 * PEOPLE, 3)), "that of its own box"
    met = box_errors.sizes_of_queries(errors, shots, "by hand", "detected")
    assert met.tolist() == [3 * person + 1.5 for person in range(PEOPLE)], (
        "the mean over its matches from other cameras"
    )


def test_the_whole_study(release, tmp_path, monkeypatch):
    torch.manual_seed(0)
    config = TrainConfig(height=64, width=32, backbone="resnet18.layer3", weights=None)
    network = AlignedReID("resnet18.layer3", weights=None)
    folder = tmp_path / "run"
    folder.mkdir()
    runs.write_json(folder / "results.json", {"parts": ["a part"]})
    monkeypatch.setattr(box_errors.book, "RESULTS", str(tmp_path))
    monkeypatch.setattr(box_errors, "open_finished", lambda folder: (network, config))
    box_errors.main(str(folder), str(release))
    found = runs.read_json(tmp_path / "box_errors.json")
    assert found["run"] == "run" and found["trained"] == ["a part"]
    assert found["errors"]["pairs"] == PEOPLE * CAMERAS and len(found["errors"]["edge"]) == 201
    assert len(found["tests"]) == 4 * 5

    shots = box_errors.read_shots(release)
    sides = {
        name: embed(network, boxes, height=config.height, width=config.width, precision="float32")
        for name, boxes in (("by hand", shots.by_hand), ("detected", shots.detected))
    }
    for test in found["tests"]:
        if test["quarter"] == "all":
            queries, gallery = (sides[test[side]] for side in ("queries", "gallery"))
            assert test["mean_ap_step"]["global"] == pytest.approx(by_loop(queries, gallery, shots), abs=1e-6)
            assert test["num_queries"] == PEOPLE
            parts = [
                one
                for one in found["tests"]
                if one["quarter"] != "all" and all(one[side] == test[side] for side in ("queries", "gallery"))
            ]
            assert sum(one["num_queries"] for one in parts) == PEOPLE
            mean = sum(one["num_queries"] * one["mean_ap_step"]["rigid"] for one in parts) / PEOPLE
            assert mean == pytest.approx(test["mean_ap_step"]["rigid"], abs=1e-6), "the quarters make up the whole"
            sizes = [one["error"] for one in parts]
            assert sizes == sorted(sizes), "the last quarter has the largest errors"
            gained = test["mean_ap_step"]["local"] - test["mean_ap_step"]["rigid"]
            assert test["differences"][0]["difference"] == pytest.approx(gained, abs=1e-6)


def by_loop(queries, gallery, shots) -> float:
    """Mean AP of the global feature, by definition."""
    found = []
    for i in np.flatnonzero(shots.asked):
        distances = (gallery.global_features - queries.global_features[i]).norm(dim=1)
        order = ranked_list(distances.tolist(), shots.ids[i], shots.ids, shots.cameras[i], shots.cameras)
        found.append(average_precision([shots.ids[k] == shots.ids[i] for k in order], "step"))
    return float(np.mean(found))


def test_an_archive_without_pairs_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme.txt", "nothing")
    with pytest.raises(InputError, match=r"other\.zip.*gt_bbox"):
        box_errors.read_shots(tmp_path / "other.zip")
