"""P x K batches: one pass over the identities, the same for the same seed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignedreid_lib.batches.sampling import IdentitySampler
from alignedreid_lib.errors import InputError


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(1, 9), min_size=3, max_size=12),
    ids_per_batch=st.integers(1, 3),
    images_per_id=st.integers(1, 5),
    seed=st.integers(0, 10**6),
)
def test_one_pass_of_p_by_k_batches(counts, ids_per_batch, images_per_id, seed):
    counts[0] = max(counts[0], images_per_id)
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)) * 10, counts))
    sampler = IdentitySampler(labels, ids_per_batch, images_per_id, seed)
    batches = list(sampler)
    assert len(batches) == len(sampler) == len(counts) // ids_per_batch
    seen = []
    for batch in batches:
        rows = batch.reshape(ids_per_batch, images_per_id)
        for row in rows:
            (label,) = set(labels[row])
            seen.append(label)
            distinct = min(images_per_id, counts[label // 10])
            assert len(set(row)) == distinct, "every image once before any is repeated"
    assert len(seen) == len(set(seen)), "an identity comes once an epoch"


def test_same_seed_same_batches_and_epochs_differ():
    labels = np.repeat(np.arange(10), 6)
    one, two = IdentitySampler(labels, 4, 3, seed=5), IdentitySampler(labels, 4, 3, seed=5)
    first = np.stack(list(one))
    np.testing.assert_array_equal(first, np.stack(list(two)))
    second = np.stack(list(one))
    assert not np.array_equal(first, second)
    two.set_epoch(2)
    np.testing.assert_array_equal(second, np.stack(list(two)))
    assert not np.array_equal(first, np.stack(list(IdentitySampler(labels, 4, 3, seed=6))))


def test_every_image_is_drawn_in_time():
    sampler = IdentitySampler(np.repeat([0, 1], 8), 2, 4, seed=0)
    drawn = {int(i) for _ in range(20) for batch in sampler for i in batch}
    assert drawn == set(range(16))


@pytest.mark.parametrize(
    ("ids_per_batch", "images_per_id", "message"),
    [
        (4, 2, "ids_per_batch is 4, but the data has 3 identities"),
        (2, 6, "images_per_id is 6, but no identity has more than 5 images"),
        (0, 2, "ids_per_batch is 0"),
    ],
)
def test_impossible_batches_are_refused(ids_per_batch, images_per_id, message):
    with pytest.raises(InputError, match=message):
        IdentitySampler([0, 0, 1, 2, 2, 2, 2, 2], ids_per_batch, images_per_id, seed=0)


def test_no_labels():
    with pytest.raises(InputError, match="at least one image"):
        IdentitySampler([], 1, 1, seed=0)


@pytest.mark.parametrize(
    ("people", "processes", "last"), [(751, 1, 15), (751, 4, 12), (736, 1, 0), (737, 1, 0), (739, 4, 0)]
)
def test_the_last_batch_is_kept_where_asked_for(people, processes, last):
    labels = np.repeat(np.arange(people), 4)
    plain, kept = (IdentitySampler(labels, 32, 4, 7, keep, processes=processes) for keep in (False, True))
    batches = list(kept)
    assert [len(batch) for batch in batches] == [128] * 23 + [4 * last] * (last > 0)
    assert len(kept) == len(batches) and kept.images_per_epoch == sum(map(len, batches))
    for one, other in zip(plain, batches, strict=False):
        np.testing.assert_array_equal(one, other)
    assert len(set(np.concatenate(batches))) == 4 * (23 * 32 + last), "nobody comes twice"


def test_drawing_with_replacement():
    sampler = IdentitySampler([0, 0, 1, 1, 1, 1, 1], 2, 4, 0, draw="replace")
    batches = [batch for _ in range(2000) for batch in sampler]
    few = [batch[batch < 2] for batch in batches]
    assert np.mean([len(set(row)) == 1 for row in few]) == pytest.approx(1 / 8, abs=0.03)
    assert all(len(set(batch[batch >= 2])) == 4 for batch in batches), "who has enough is drawn without"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"draw": "replce"}, "draw is 'replce'; it has to be 'cover' or 'replace'"),
        ({"processes": 0}, "processes is 0; it has to be an integer of 1 or more"),
        ({"processes": 3}, "processes is 3; it has to be a divisor of ids_per_batch, which is 2"),
        ({"seed": -1}, "seed is -1; it has to be an integer of 0 or more"),
        ({"seed": None}, "seed is None"),
        ({"ids_per_batch": 2.0}, "ids_per_batch is 2.0; it has to be an integer of 1 or more"),
        ({"images_per_id": "2"}, "images_per_id is '2'"),
        ({"images_per_id": True}, "images_per_id is True"),
    ],
)
def test_settings_that_cannot_work_are_refused(given, message):
    settings = {"ids_per_batch": 2, "images_per_id": 2, "seed": 0}
    assert len(IdentitySampler([0, 0, 1, 1], **settings)) == 1
    with pytest.raises(InputError, match=message):
        IdentitySampler([0, 0, 1, 1], **settings | given)


def test_numpys_integers_are_integers():
    sampler = IdentitySampler([0, 0, 1, 1], np.int64(2), np.int32(2), np.uint8(0), processes=np.int64(2))
    assert [len(batch) for batch in sampler] == [4]
