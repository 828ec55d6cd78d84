"""The score table: who takes part, which numbers, how they are written."""

import dataclasses
import json
import math
import weakref
from pathlib import Path

import numpy as np
import oracles
import pytest
import torch
from host_waits import forbid_host_waits
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from alignedreid_lib import alignment, devices, evaluation, runs
from alignedreid_lib.datasets import Dataset
from alignedreid_lib.errors import InputError
from alignedreid_lib.evaluation import (
    colour_histograms,
    distances,
    evaluate,
    evaluate_features,
    rank_counts,
    reranking,
    verification,
)
from alignedreid_lib.evaluation.features import Features
from alignedreid_lib.evaluation.ranking import score_ranking
from alignedreid_lib.evaluation.reranking import rerank, rerank_distances
from alignedreid_lib.evaluation.scores import MORE_SCORES, ScoreTable, average

pytestmark = pytest.mark.arithmetic

GLOBAL = ("global",)


def make_features(vectors, ids, cameras, marks):
    vectors = torch.as_tensor(vectors, dtype=torch.float32)
    names = [f"{k}.jpg" for k in range(len(vectors))]
    return Features(vectors, torch.zeros(len(vectors), 2, 4), *map(np.asarray, (ids, cameras, marks)), names)


@pytest.fixture
def features():
    """Many people of four cameras in the plane; marks of all three kinds."""
    rng = np.random.default_rng(5)
    ids = rng.integers(0, 12, 300)
    vectors = rng.normal(size=(12, 3))[ids] + rng.normal(size=(300, 3))
    return make_features(vectors, ids, rng.integers(0, 4, 300), rng.choice(3, 300, p=[0.3, 0.6, 0.1]))


@pytest.mark.parametrize("block", [7, 1000])
def test_equals_brute_force_whatever_the_block(features, block, monkeypatch):
    monkeypatch.setattr(evaluate_features, "_BLOCK_BYTES", 4 * block * int((features.marks == 1).sum()))
    (row,) = evaluate(features, GLOBAL, False).rows
    queries, gallery = features[features.marks == 0], features[features.marks == 1]
    differences = queries.global_features[:, None].double() - gallery.global_features[None].double()
    problem = (differences.norm(dim=2).numpy(), queries.ids, gallery.ids, queries.cameras, gallery.cameras)
    curves, steps = oracles.score_ranking(*problem, "market1501", "step", 10)
    _, trapezoids = oracles.score_ranking(*problem, "market1501", "trapezoid", 10)
    assert (row.rank1, row.rank5, row.rank10) == pytest.approx(tuple(curves.mean(axis=0)[[0, 4, 9]]), abs=1e-6)
    assert (row.mean_ap_step, row.mean_ap_trapezoid) == pytest.approx((steps.mean(), trapezoids.mean()), abs=1e-4)
    assert (row.distance, row.reranked, row.num_queries, row.num_valid) == ("global", False, len(queries), len(queries))


def test_multi_query_images_take_no_part():
    """The mark-2 image is the nearest wrong one; it is neither query nor gallery."""
    people = make_features([[0.0], [0.1], [1.0]], [1, 2, 1], [0, 1, 1], [0, 2, 1])
    (row,) = evaluate(people, GLOBAL, False).rows
    assert row.rank1 == 1 and row.num_queries == 1


def test_table_in_text():
    people = make_features([[0.0], [5.0], [1.0], [2.0]], [1, 9, 2, 1], [0, 0, 1, 1], [0, 0, 1, 1])
    table = evaluate(people, GLOBAL, False, name="trained") + evaluate(people, GLOBAL, False)
    assert table.to_markdown() == str(table) == table._repr_markdown_()
    assert str(table).splitlines() == [
        "| Features   | Distance   |   Rank-1 |   Rank-5 |   Rank-10 |   mAP (step) |   mAP (trapezoid) |   Queries |",
        "|:-----------|:-----------|---------:|---------:|----------:|-------------:|------------------:|----------:|",
        "| trained    | global     |      0.0 |    100.0 |     100.0 |         50.0 |              25.0 |    1 of 2 |",
        "|            | global     |      0.0 |    100.0 |     100.0 |         50.0 |              25.0 |    1 of 2 |",
    ]
    assert str(evaluate(people, GLOBAL, False)).startswith("| Distance   |   Rank-1")


def test_table_as_data():
    people = make_features([[0.0], [1.0]], [1, 1], [0, 1], [0, 1])
    nobody = make_features([[0.0], [1.0]], [1, 2], [0, 1], [0, 1])
    data = json.loads(
        json.dumps(
            (evaluate(people, GLOBAL, False) + evaluate(nobody, GLOBAL, False, name="x")).to_dict(), allow_nan=False
        )
    )
    assert data["rows"][0] == {
        "name": "", "distance": "global", "reranked": False, "rank1": 1.0, "rank5": 1.0, "rank10": 1.0,
        "mean_ap_step": 1.0, "mean_ap_trapezoid": 1.0, "num_queries": 1, "num_valid": 1, "cameras_known": True,
        "runs": 1, "spread": None, "per_query": {"rank1": "1", "ap": "10000", "ids": "1"},
        "mean_inp": 1.0, "tpr_1e2": None, "tpr_1e3": None,
    }  # fmt: skip
    assert data["rows"][1]["rank1"] is None and data["rows"][1]["num_valid"] == 0
    assert "|        - |" in str(evaluate(nobody, GLOBAL, False))
    assert isinstance(evaluate(people, GLOBAL, False), ScoreTable)


def test_scores_of_each_query(features):
    features = features[(features.cameras != 1) | (features.marks != 1)]
    features.ids[np.flatnonzero(features.marks == 0)[:3]] = 99  # three queries without a match
    queries, gallery = evaluation.split(features)
    people = (queries.ids, gallery.ids, queries.cameras, gallery.cameras)
    matrix = evaluation.distance_matrix("global", queries, gallery)
    wanted = score_ranking(matrix, *people, average_precision="step")
    (row,) = evaluate(features, GLOBAL, False).rows
    np.testing.assert_array_equal(row.per_query.ap, wanted.ap_per_query)
    np.testing.assert_array_equal(row.per_query.rank1, np.where(wanted.valid, wanted.cmc_per_query[:, 0], np.nan))
    assert np.isnan(row.per_query.rank1[:3]).all()
    np.testing.assert_array_equal(row.per_query.ids, queries.ids)
    assert evaluate(features, GLOBAL, False, protocol="cuhk03").rows[0].per_query is None


def test_a_table_read_back(features):
    table = evaluate(features, GLOBAL, name="x")
    data = json.loads(json.dumps(table.to_dict()))
    assert set(data["rows"][0]["per_query"]["rank1"]) <= set("01-")
    again = ScoreTable.from_dict(data)
    assert again == table
    for one, other in zip(table.rows, again.rows, strict=True):
        np.testing.assert_array_equal(one.per_query.rank1, other.per_query.rank1)
        np.testing.assert_allclose(one.per_query.ap, other.per_query.ap, atol=0.5e-4)
        np.testing.assert_array_equal(one.per_query.ids, other.per_query.ids)
        assert other.per_query.ids.dtype == np.int64
    scores = data["rows"][0]["per_query"]
    assert "*" in scores["ids"]
    scores["ids"] = " ".join(map(str, table.rows[0].per_query.ids))  # as files had it before repeats were counted
    older = ScoreTable.from_dict(data).rows[0].per_query
    np.testing.assert_array_equal(older.ids, table.rows[0].per_query.ids)
    del scores["ids"]
    old = ScoreTable.from_dict(data)
    assert old.rows[0].per_query.ids is None and "ids" not in old.to_dict()["rows"][0]["per_query"]
    nobody = make_features([[0.0], [1.0]], [1, 2], [0, 1], [0, 1])
    (row,) = ScoreTable.from_dict(json.loads(json.dumps(evaluate(nobody, GLOBAL, False).to_dict()))).rows
    assert np.isnan(row.rank1) and np.isnan(row.per_query.rank1).all() and np.isnan(row.per_query.ap).all()


@pytest.mark.parametrize("name", ["embedded_combined", "mutual_study"])
def test_scores_per_query_of_finished_runs_are_read(name):
    rows = runs.read_json(Path(__file__).parents[1] / "notebooks" / "results" / f"{name}.json")["scores"]
    table = ScoreTable.from_dict({"rows": [row for row in rows if row.get("per_query")]})
    assert table.rows and all(len(row.per_query.ap) == row.num_queries for row in table.rows)


DAMAGE = [
    {"rank1": "high"},
    {"rank1": [1]},
    {"rank1": True},
    {"num_queries": 2.5},
    {"name": None},
    {"runs": 2, "spread": {}},
    {"per_query": {}},
    {"per_query": []},
    {"per_query": "1"},
    {"per_query": {"rank1": "11", "ap": None}},
    {"per_query": {"rank1": "11", "ap": [1, 2]}},
    {"per_query": {"rank1": "11"}},
    {"per_query": {"rank1": ["1", "1"], "ap": "1 2"}},
    {"per_query": {"rank1": "12", "ap": "1 2"}},
    {"per_query": {"rank1": "11", "ap": "1"}},
    {"per_query": {"rank1": "1", "ap": "1"}},
    {"per_query": {"rank1": "111", "ap": "1 2 3"}},
    {"per_query": {"rank1": "1-", "ap": "1 2"}},
    {"per_query": {"rank1": "1-", "ap": "1 -"}},  # the row has two valid queries
    {"per_query": {"rank1": "11", "ap": "1 10001"}},
    {"per_query": {"rank1": "11", "ap": "1 x"}},
    {"per_query": {"rank1": "11", "ap": "1 2", "ids": "5"}},
    {"per_query": {"rank1": "11", "ap": "1 2", "ids": "5*3"}},
    {"per_query": {"rank1": "11", "ap": "1 2", "ids": "5*-2"}},
    {"per_query": {"rank1": "11", "ap": "1 2", "ids": "5*2 6*0"}},
    {"per_query": {"rank1": "11", "ap": "1 2", "ids": "5*x"}},
    {"per_query": {"rank1": "11", "ap": "1 2", "ids": f"5*{10**12}"}},
    {"per_query": {"rank1": "11", "ap": "1 2", "ids": "5 x"}},
    {"per_query": {"rank1": "11", "ap": "1 2", "ids": [5, 5]}},
    {"per_query": {"rank1": "11", "ap": "1 2", "ids": f"5 {10**30}"}},
]


@pytest.mark.parametrize("damage", DAMAGE, ids=str)
def test_a_damaged_row_is_refused(damage):
    whole = {"rank1": "11", "ap": "1 2", "ids": "5 5"}
    row = {
        "name": "x", "distance": "global", "reranked": False, "rank1": 1, "rank5": 1.0, "rank10": 1.0,
        "mean_ap_step": 1.0, "mean_ap_trapezoid": 1.0, "num_queries": 2, "num_valid": 2, "per_query": whole,
    }  # fmt: skip
    str(ScoreTable.from_dict({"rows": [row, row | {"per_query": whole | {"ids": None}}]}))
    with pytest.raises(InputError, match="not a score table") as caught:
        ScoreTable.from_dict({"rows": [row | damage]})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["cuhk03_mobilenet", "alignment_study"])
def test_rows_of_finished_runs_are_read(name):
    rows = runs.read_json(Path(__file__).parents[1] / "notebooks" / "results" / f"{name}.json")["scores"]
    table = ScoreTable.from_dict({"rows": [{k: v for k, v in row.items() if k != "per_query"} for row in rows]})
    assert len(table.rows) == len(rows) > 0 and table.rows[0].per_query is None
    assert table.rows[0].rank1 == rows[0]["rank1"]


@pytest.mark.parametrize("data", [{}, [], {"rows": [{"name": "x"}]}, {"rows": [1]}, {"rows": None}, {"rows": {}}, None])
def test_what_is_no_table_is_refused(data):
    with pytest.raises(InputError, match="not a score table"):
        ScoreTable.from_dict(data)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"distances": ("cosine",)}, "global"),
        ({"distances": "global"}, "give a list"),
        ({"distances": ()}, "give a list"),
        ({"protocol": "viper"}, "protocol 'viper'"),
        ({"multi_query": "sum"}, "multi_query is 'sum'"),
    ],
)
def test_unknown_settings_are_refused(features, settings, words):
    with pytest.raises(InputError, match=words):
        evaluate(features, **settings)


def test_features_without_queries_gallery_or_sense_are_refused(features):
    for mark in (0, 1):
        with pytest.raises(InputError, match="val or test part"):
            evaluate(features[features.marks != mark], GLOBAL, False)
    features.global_features[3] = torch.nan
    with pytest.raises(InputError, match="nan"):
        evaluate(features, GLOBAL, False)


def test_colour_histograms_know_colours_and_not_places(tmp_path):
    """Half red and half blue is the same whichever half; red alone shares half of it; green shares nothing."""
    pictures = np.zeros((4, 8, 6, 3), np.uint8)
    pictures[0, :4, :, 0] = pictures[0, 4:, :, 2] = 255  # red above blue
    pictures[1, 4:, :, 0] = pictures[1, :4, :, 2] = 255  # blue above red
    pictures[2, :, :, 0] = 255  # red
    pictures[3, :, :, 1] = 255  # green
    paths = [tmp_path / f"{k}.png" for k in range(4)]
    for path, picture in zip(paths, pictures, strict=True):
        Image.fromarray(picture).save(path)
    numbers = np.arange(4)
    features = colour_histograms(Dataset(tmp_path, "test", paths, numbers, numbers, None, numbers % 2))
    assert features.global_features.shape == (4, 512) and features.local_features.shape == (4, 0, 0)
    torch.testing.assert_close(features.global_features.norm(dim=1), torch.ones(4))
    distances = evaluation.distance_matrix("global", features, features)
    assert distances[0, 1] < 1e-3
    assert float(distances[0, 2]) == pytest.approx(np.sqrt(2 - np.sqrt(2)), abs=1e-5)
    assert float(distances[2, 3]) == pytest.approx(np.sqrt(2), abs=1e-5)
    assert len(evaluate(features, GLOBAL, False).rows) == 1
    with pytest.raises(InputError, match="bins is 0"):
        colour_histograms(Dataset(tmp_path, "test", paths, numbers, numbers, None, numbers), bins=0)


def test_a_device_that_is_not_here_is_refused(features):
    with pytest.raises(InputError, match="device 'abacus' cannot be used here"):
        evaluate(features, GLOBAL, False, device="abacus")


def test_unknown_distance_is_refused(features):
    with pytest.raises(InputError, match="choose one of global"):
        evaluation.distance_matrix("manhattan", features, features)


@pytest.fixture
def striped():
    """Twelve people of three stripes before three cameras, marks of both kinds."""
    rng = np.random.default_rng(2)
    ids, cameras = np.repeat(np.arange(6), 4), np.tile([0, 1, 2, 1], 6)
    features = make_features(rng.normal(size=(24, 4)), ids, cameras, np.tile([0, 1, 1, 0], 6))
    return dataclasses.replace(features, local_features=torch.from_numpy(rng.normal(size=(24, 3, 5))).float())


def test_every_distance_is_what_its_name_says(striped):
    x = striped.local_features.tolist()
    matrices = {name: evaluation.distance_matrix(name, striped, striped) for name in evaluation.DISTANCES}
    for name, aligned in (("local", True), ("rigid", False)):
        wanted = [[oracles.local_distance(a, b, aligned) for b in x] for a in x]
        # Beside the diagonal: a picture's distance to itself is the rounding of a difference.
        beside = ~np.eye(24, dtype=bool)
        np.testing.assert_allclose(matrices[name].numpy()[beside], np.array(wanted)[beside], rtol=1e-4)
        torch.testing.assert_close(matrices[f"global+{name}"], matrices["global"] + matrices[name])


def test_a_table_of_all_distances_is_the_tables_of_each(striped):
    table = evaluate(striped, evaluation.DISTANCES, False)
    assert [row.distance for row in table.rows] == list(evaluation.DISTANCES)
    assert table.rows == [row for name in evaluation.DISTANCES for row in evaluate(striped, [name], False).rows]
    queries, gallery = evaluation.split(striped)
    for row in table.rows:
        matrix = evaluation.distance_matrix(row.distance, queries, gallery).numpy()
        labels = (queries.ids, gallery.ids, queries.cameras, gallery.cameras)
        assert row.mean_ap_step == pytest.approx(score_ranking(matrix, *labels, average_precision="step").mean_ap)
    assert len({row.mean_ap_step for row in table.rows}) > 3, "they differ"


def three_kinds(seed: int = 3, count: int = 120) -> Features:
    """Ten people before three cameras, with local features and multi-query images."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 10, count)
    vectors = rng.normal(size=(10, 6))[ids] + rng.normal(size=(count, 6))
    features = make_features(vectors, ids, rng.integers(0, 3, count), rng.choice(3, count, p=[0.2, 0.6, 0.2]))
    local = rng.normal(size=(10, 3, 5))[ids] + rng.normal(size=(count, 3, 5))
    return dataclasses.replace(features, local_features=torch.from_numpy(local).float())


@pytest.mark.parametrize("protocol", ["market1501", "allshots", "cuhk03"])
def test_the_host_waits_only_where_results_are_fetched(protocol, monkeypatch):
    """The whole evaluation with the CPU in place of an accelerator: the same scores, and no wait between fetches."""
    features, how = three_kinds(), {"multi_query": "average", "normalize": True, "protocol": protocol}
    wanted = evaluate(features, evaluation.DISTANCES, True, device="cpu", **how)
    monkeypatch.setattr(devices, "is_accelerator", lambda device: True)
    with forbid_host_waits() as waits:
        monkeypatch.setattr(devices, "fetch", waits.allowing(devices.fetch))
        found = evaluate(features, evaluation.DISTANCES, True, **how)
    for one, other in zip(found.rows, wanted.rows, strict=True):
        assert (one.distance, one.reranked) == (other.distance, other.reranked)
        assert one.mean_ap_step == pytest.approx(other.mean_ap_step, abs=1e-6)
        assert one.rank10 == pytest.approx(other.rank10, abs=1e-6)
        assert (one.mean_inp, one.tpr_1e2) == pytest.approx((other.mean_inp, other.tpr_1e2), abs=1e-6)
    if protocol == "market1501":  # a ranking fetches three results and its distances, a re-ranking six more
        assert waits.fetched == {"fetch": 5 * (3 + 1) + 5 * (3 + 6)}, "not once for every query or image"


def test_local_distances_of_the_gallery_with_itself_are_computed_once(monkeypatch):
    features, computed = three_kinds(), []
    gallery = int((features.marks == 1).sum())
    original = distances.local_distances

    def counted(x, y, aligned=True):
        computed.append((len(x), len(y), aligned))
        return original(x, y, aligned)

    monkeypatch.setattr(distances, "local_distances", counted)
    evaluate(features, evaluation.DISTANCES)
    assert sorted(entry for entry in computed if entry[:2] == (gallery, gallery)) == [
        (gallery, gallery, False),
        (gallery, gallery, True),
    ]


@pytest.mark.parametrize("rows", [7, 1000])
def test_re_ranked_rows_do_not_depend_on_which_others_share_their_distances(rows, monkeypatch):
    features = three_kinds()
    queries, gallery = evaluation.split(features)
    monkeypatch.setattr(distances, "_BLOCK_BYTES", 4 * rows * len(gallery))
    shared = dict(distances.reranked_matrices(evaluation.DISTANCES, queries, gallery))
    assert set(shared) == set(evaluation.DISTANCES)
    for name, matrix in shared.items():
        sides = [(queries, gallery), (queries, queries), (gallery, gallery)]
        if name != "global":
            alone = rerank_distances(*(evaluation.distance_matrix(name, *side) for side in sides))
            np.testing.assert_allclose(matrix, alone, atol=1e-5)
        np.testing.assert_allclose(matrix, evaluation.reranked_matrix(name, queries, gallery), atol=1e-5)


class PeakBytes(TorchDispatchMode):
    """The most bytes of tensors, made inside it, that were alive at a time: what a device's memory would hold."""

    def __init__(self):
        super().__init__()
        self.alive, self.peak = weakref.WeakKeyDictionary(), 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        made = operation(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                self.alive[tensor.untyped_storage()] = tensor.untyped_storage().nbytes()
        self.peak = max(self.peak, sum(self.alive.values()))
        return made


NEIGHBOURS = 1500  # bytes for the neighbours of an image, and for those of them that are not among its nearest


def device_bytes(q: int, g: int, width: int, block: int, rerank: bool) -> float:
    """The bound that `evaluate` documents: `width` numbers for each image, `block` bytes of blocks."""
    return 4 * (q + g) * 2 * width + block + rerank * 4 * (q + g) ** 2


@pytest.mark.parametrize("rerank", [False, True])
def test_device_memory_stays_below_the_documented_bound(rerank, monkeypatch):
    features, small = three_kinds(count=900), 1 << 14
    q, g = (int((features.marks == mark).sum()) for mark in (0, 1))
    monkeypatch.setattr(devices, "is_accelerator", lambda device: True)
    for module in (evaluate_features, distances, reranking):
        monkeypatch.setattr(module, "_BLOCK_BYTES", small)
    monkeypatch.setattr(rank_counts, "_DEVICE_BYTES", small)
    monkeypatch.setattr(alignment, "_CPU_CELLS", small)
    with PeakBytes() as memory:
        evaluate(features, rerank=rerank)
    assert memory.peak < device_bytes(q, g, 6 + 3 * 5, 24 * small + NEIGHBOURS * (q + g), rerank)
    assert memory.peak > (4 * g * g if rerank else 0), "the matrix of the gallery with itself was seen"


def test_market_1501_fits_eight_gigabytes():
    """Blocks: a tile of local distances, three of global ones, two of re-ranking, and six of sorting."""
    blocks = 4 * 1.3 * alignment._GPU_CELLS + 3 * distances._BLOCK_BYTES + 2 * reranking._BLOCK_BYTES
    blocks += 6 * rank_counts._DEVICE_BYTES + NEIGHBOURS * (3368 + 15913)
    assert blocks < 2 << 30, "as documented"
    assert device_bytes(3368, 15913, 2048 + 8 * 128, 2 << 30, True) < 4.2e9


def test_normalized_features_are_compared_at_unit_length(striped):
    longer = dataclasses.replace(
        striped,
        global_features=striped.global_features * torch.rand(24, 1).add(0.5),
        local_features=striped.local_features * torch.rand(24, 3, 1).add(0.5),
    )
    assert evaluate(longer, ["global+local"], False, normalize=True) == evaluate(
        striped, ["global+local"], False, normalize=True
    )
    assert evaluate(longer, ["global+local"], False) != evaluate(striped, ["global+local"], False)


def test_the_whole_table(features):
    """Every distance plain and re-ranked, in the original's order."""
    rng = torch.Generator().manual_seed(0)
    features = dataclasses.replace(features, local_features=torch.rand(300, 3, 4, generator=rng))
    table = evaluate(features)
    names = [(row.distance, row.reranked) for row in table.rows]
    assert names == [(name, flag) for name in ("global", "local", "global+local") for flag in (False, True)]
    queries, gallery = evaluation.split(features)
    matrix = rerank(queries.global_features, gallery.global_features)
    people = (queries.ids, gallery.ids, queries.cameras, gallery.cameras)
    scores = score_ranking(matrix, *people, average_precision="step")
    assert (table.rows[1].rank1, table.rows[1].mean_ap_step) == (scores.cmc[0], scores.mean_ap)
    assert "global+local, re-ranked" in str(table)
    assert table.rows[5] != table.rows[4] != table.rows[2]


def test_protocols(features):
    queries, gallery = evaluation.split(features)
    people = (queries.ids, gallery.ids, queries.cameras, gallery.cameras)
    matrix = evaluation.distance_matrix("global", queries, gallery)
    for protocol in ("market1501", "allshots", "cuhk03"):
        (row,) = evaluate(features, GLOBAL, False, protocol=protocol).rows
        cmc = score_ranking(matrix, *people, protocol).cmc
        assert (row.rank1, row.rank5, row.rank10) == pytest.approx((cmc[0], cmc[4], cmc[9]))


def test_multi_query_pools_the_same_person_in_the_same_camera():
    points = [[0.0, 4.0], [2.0, 0.0], [4.0, 2.0], [9.0, 9.0], [1.0, 1.0]]
    #        query         its multi-query images    another camera's   gallery
    people = make_features(points, [1, 1, 1, 1, 1], [3, 3, 3, 0, 1], [0, 2, 2, 2, 1])
    queries = people[people.marks == 0]
    others = people[people.marks == 2]
    assert evaluation.pool_queries(queries, others, "average").global_features.tolist() == [[2.0, 2.0]]
    assert evaluation.pool_queries(queries, others, "max").global_features.tolist() == [[4.0, 4.0]]
    alone = evaluation.pool_queries(queries, others[others.cameras == 0], "max")
    assert alone.global_features.tolist() == [[0.0, 4.0]]
    assert len(evaluate(people, GLOBAL, False, "average").rows) == 1
    with pytest.raises(InputError, match="only Market-1501 has them"):
        evaluate(people[people.marks != 2], GLOBAL, False, "max")


def test_multi_query_helps(features):
    single, pooled = (evaluate(features, GLOBAL, False, how).rows[0].mean_ap_step for how in (None, "average"))
    assert pooled > single


def test_tables_of_several_runs_are_averaged(features):
    tables = [evaluate(features[features.cameras != camera], GLOBAL, False, name="x") for camera in range(3)]
    (row,) = average(tables).rows
    firsts = [table.rows[0].rank1 for table in tables]
    assert row.rank1 == pytest.approx(np.mean(firsts)) and row.spread["rank1"] == pytest.approx(np.std(firsts, ddof=1))
    assert row.per_query is None, "a mean of 0 and 1 is neither"
    assert row.runs == 3 and "±" in str(average(tables)) and "±" not in str(average(tables[:1]))
    json.dumps(average(tables).to_dict(), allow_nan=False)
    with pytest.raises(InputError, match="different rows"):
        average([tables[0], evaluate(features, GLOBAL, False, name="y")])
    with pytest.raises(InputError, match="no tables"):
        average([])


def test_scores_that_older_results_lack_have_no_spread(features):
    (row,) = evaluate(features, GLOBAL, False).rows
    older = ScoreTable([dataclasses.replace(row, **{name: math.nan for name in MORE_SCORES})])
    (mean,) = average([older, older]).rows
    assert all(math.isnan(getattr(mean, name)) and mean.spread[name] == 0 for name in MORE_SCORES)


def test_features_without_stripes_have_no_local_distance(features):
    bare = dataclasses.replace(features, local_features=torch.zeros(300, 0, 0))
    with pytest.raises(InputError, match="no local part"):
        evaluate(bare)
    assert evaluate(bare, GLOBAL, False, "max").rows


# mINP, and the true-positive rate at a false-positive rate


@pytest.fixture
def three_hundred():
    """300 images of noise: 20 people, three cameras."""
    return three_kinds(seed=8, count=300)


def test_the_inverse_penalty_by_brute_force(three_hundred):
    queries, gallery = evaluation.split(three_hundred)
    matrix = evaluation.distance_matrix("global", queries, gallery).numpy()
    wanted = []
    for q in range(len(queries)):
        own = (matrix[q], queries.ids[q], gallery.ids, queries.cameras[q], gallery.cameras)
        hits = [gallery.ids[g] == queries.ids[q] for g in oracles.ranked_list(*own)]
        wanted.append(oracles.inverse_penalty(hits))
    (row,) = evaluate(three_hundred, GLOBAL, False).rows
    assert row.mean_inp == pytest.approx(np.nanmean(wanted)) and 0 < row.mean_inp < 1


def test_the_inverse_penalty_by_hand():
    """Matches at ranks 1 and 4 (the junk at rank 2 is not counted): 2 of 4; and at 1 alone: 1 of 1."""
    features = make_features(
        [[0.0], [10.0], [0.1], [0.2], [1.0], [2.0], [3.0], [10.1]],
        [1, 2, 1, 1, 3, 3, 1, 2], [0, 0, 1, 0, 1, 1, 2, 1], [0, 0, 1, 1, 1, 1, 1, 1],
    )  # fmt: skip
    assert evaluate(features, GLOBAL, False).rows[0].mean_inp == (2 / 4 + 1) / 2


@pytest.mark.parametrize("block_bytes", [1, 1 << 20])
def test_true_positive_rates_are_points_of_the_curve(three_hundred, monkeypatch, block_bytes):
    monkeypatch.setattr(evaluate_features, "_BLOCK_BYTES", block_bytes)
    for distance in ("global", "local"):
        (row,) = evaluate(three_hundred, (distance,), False).rows
        same, different = verification.pair_distances(three_hundred, distance)
        curve = verification.roc(same, different)
        for rate, found in ((1e-2, row.tpr_1e2), (1e-3, row.tpr_1e3)):
            wanted = (same <= verification.choose_threshold(curve, rate)).mean()
            assert found == pytest.approx(wanted) and 0 <= found < 1
        assert row.tpr_1e3 <= row.tpr_1e2


def test_ties_are_accepted_together_or_not_at_all():
    """Of 100 pairs of two people one may pass; two of them tie, so none does, and the equal pair does not."""
    values = [[0.0], *[[1.0]] * 3, *[[5.0]] * 98]
    ids = [1, 1, *range(2, 102)]
    features = make_features(values, ids, [0] + [1] * 101, [0] + [1] * 101)
    (row,) = evaluate(features, GLOBAL, False).rows
    assert (row.tpr_1e2, row.tpr_1e3) == (0.0, 0.0)
    features.global_features[3] = 2.0
    assert evaluate(features, GLOBAL, False).rows[0].tpr_1e2 == 1.0, "now one pair of two people is as near"


def test_more_columns_on_request_and_older_rows_have_none(three_hundred):
    table = evaluate(three_hundred, GLOBAL, False)
    assert "mINP" not in str(table)
    head, _, line = table.to_markdown(more=True).splitlines()
    assert "mINP |   TPR at FPR 1 % |   TPR at FPR 0.1 % |" in head
    assert f"{100 * table.rows[0].mean_inp:.1f}" in line
    data = table.to_dict()
    again = ScoreTable.from_dict(data)
    assert (again.rows[0].mean_inp, again.rows[0].tpr_1e3) == (table.rows[0].mean_inp, table.rows[0].tpr_1e3)
    for name in MORE_SCORES:
        del data["rows"][0][name]
    older = ScoreTable.from_dict(data)
    assert math.isnan(older.rows[0].tpr_1e2) and older.to_markdown(more=True).count(" - |") == 3
    assert average([table, table]).rows[0].mean_inp == pytest.approx(table.rows[0].mean_inp)
    assert math.isnan(average([older, older]).rows[0].tpr_1e2), "and no spread"
