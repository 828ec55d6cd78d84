"""Decoding, the store, resizing and augmentation."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from alignedreid_lib.batches import images
from alignedreid_lib.datasets.jpegs import to_jpeg
from alignedreid_lib.errors import InputError

pytestmark = pytest.mark.arithmetic


@pytest.fixture
def pictures(tmp_path):
    rng = np.random.default_rng(0)
    paths = []
    for index in range(6):
        path = tmp_path / f"{index}.png"
        Image.fromarray(rng.integers(0, 256, (20 + index, 10, 3), dtype=np.uint8)).save(path)
        paths.append(path)
    return paths


def test_decode_gives_rgb_upright(tmp_path):
    pixels = np.zeros((4, 2, 3), np.uint8)
    pixels[0, 0] = (255, 0, 0)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: shown right, the first pixel is at the upper right
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    image = images.decode(tmp_path / "turned.png")
    assert image.shape == (3, 2, 4)
    assert image[:, 0, 3].tolist() == [255, 0, 0]
    Image.fromarray(pixels[..., 0]).save(tmp_path / "grey.png")
    assert images.decode(tmp_path / "grey.png").shape == (3, 4, 2)


def test_what_does_not_decode_is_named(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 not a picture")
    with pytest.raises(InputError, match=r"broken\.jpg: not an image that decodes"):
        images.decode(tmp_path / "broken.jpg")
    with pytest.raises(InputError, match=r"absent\.jpg: no such image"):
        images.decode(tmp_path / "absent.jpg")


def test_an_image_has_the_pixels_of_the_dataset_made_of_it(tmp_path):
    """Folders are made into datasets by `to_jpeg`: what it refuses or paints white is so here, too."""
    clear = Image.new("RGBA", (16, 32), (10, 20, 30, 0))
    clear.paste((200, 30, 30, 255), (0, 0, 16, 16))
    clear.save(tmp_path / "clear.png")
    pixels = images.decode(tmp_path / "clear.png")
    assert (pixels[:, 16:] == 255).all() and pixels[:, 0, 0].tolist() == [200, 30, 30]
    (tmp_path / "dataset.jpg").write_bytes(to_jpeg((tmp_path / "clear.png").read_bytes(), "it"))
    assert (images.decode(tmp_path / "dataset.jpg").float() - pixels.float()).abs().mean() < 1
    clear.convert("P").save(tmp_path / "palette.png")
    assert (images.decode(tmp_path / "palette.png")[:, 16:] == 255).all()


def test_deep_pixels_and_moving_images_are_refused_not_turned_white(tmp_path):
    Image.fromarray(np.full((4, 2), 300, np.uint16)).save(tmp_path / "deep.png")
    Image.fromarray(np.full((4, 2), 0.5, np.float32)).save(tmp_path / "deep.tif")
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    for name, says in [
        ("deep.png", r"has pixels of kind I;16, not 8 bits per channel"),
        ("deep.tif", "has pixels of kind F, not 8 bits per channel"),
        ("moving.gif", "contains 2 images"),
    ]:
        with pytest.raises(InputError, match=f"{name} {says}; save it as an 8-bit JPEG or PNG"):
            images.decode(tmp_path / name)


def test_resize_is_bilinear_without_antialias():
    image = torch.tensor([[0, 100], [200, 40]], dtype=torch.uint8).expand(3, 2, 2)
    # Half-pixel centres: the new middle column weighs both old ones equally.
    assert images.resize(image, (2, 3))[0].tolist() == [[0, 50, 100], [200, 120, 40]]
    # Without antialias, a third of the width keeps only every third column.
    wide = torch.arange(0, 90, 10, dtype=torch.uint8).expand(3, 1, 9)
    assert images.resize(wide, (1, 3))[0].tolist() == [[10, 40, 70]]


def test_store_decodes_once_and_keeps_to_its_bound(pictures, monkeypatch):
    calls = []
    real = images.decode
    monkeypatch.setattr(images, "decode", lambda path: (calls.append(path), real(path))[1])
    size = (8, 4)
    whole = images.ImageStore(pictures, size)
    expected = [images.resize(real(path), size) for path in pictures]
    for _ in range(2):
        for got, want in zip(whole.fetch([5, 0, 0, 3]), [expected[i] for i in (5, 0, 0, 3)], strict=True):
            assert torch.equal(got, want)
    assert len(calls) == 3
    two = images.ImageStore(pictures, size, limit_bytes=2 * 3 * 8 * 4, workers=3)
    for _ in range(2):
        for got, want in zip(two.fetch(range(6)), expected, strict=True):
            assert torch.equal(got, want)
    assert two.kept_bytes == 2 * 3 * 8 * 4
    assert len(calls) == 3 + 6 + 4, "four pictures were decoded again"


def test_augment_depends_on_the_generator_alone(pictures):
    store = images.ImageStore(pictures)
    fetched = store.fetch(range(6))

    def make(seed):
        return images.augment(fetched, (16, 8), torch.Generator().manual_seed(seed), crop_prob=0.7, crop_ratio=0.5)

    assert make(1).shape == (6, 3, 16, 8)
    assert make(1).dtype == torch.uint8
    assert torch.equal(make(1), make(1))
    assert not torch.equal(make(1), make(2))


def test_mirror_and_plain(pictures):
    fetched = images.ImageStore(pictures, (16, 8)).fetch(range(6))
    plain = images.augment(fetched, (16, 8), torch.Generator().manual_seed(0), mirror_prob=0.0)
    turned = images.augment(fetched, (16, 8), torch.Generator().manual_seed(0), mirror_prob=1.0)
    assert torch.equal(plain, torch.stack(fetched))
    assert torch.equal(turned, plain.flip(-1))
    assert torch.equal(images.ImageStore(pictures, (16, 8)).fetch([2])[0], fetched[2]), "the store's own are untouched"
    many = images.augment(fetched[:1] * 400, (16, 8), torch.Generator().manual_seed(0))
    share = np.mean([not torch.equal(image, fetched[0]) for image in many])
    assert 0.4 < share < 0.6


def test_crop_keeps_its_share():
    image = torch.arange(3 * 40 * 20, dtype=torch.int32).reshape(3, 40, 20)
    generator = torch.Generator().manual_seed(0)
    heights, widths = zip(*(images.random_crop(image, 0.5, generator).shape[1:] for _ in range(200)), strict=True)
    assert 20 <= min(heights) < 23 and 37 < max(heights) <= 40
    assert 10 <= min(widths) < 12 and 18 < max(widths) <= 20


def test_normalize():
    batch = torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)
    got = images.normalize(batch)[0, :, 0, 0]
    torch.testing.assert_close(got, torch.tensor([(1 - 0.486) / 0.229, (1 - 0.459) / 0.224, (1 - 0.408) / 0.225]))
    assert images.normalize(torch.zeros(2, 3, 4, 4, dtype=torch.uint8)).is_contiguous(memory_format=torch.channels_last)


def test_prefetch_keeps_the_order_and_passes_errors_on():
    assert list(images.prefetch(lambda n: n * n, range(7), depth=3)) == [n * n for n in range(7)]
    with pytest.raises(ZeroDivisionError):
        list(images.prefetch(lambda n: 1 / n, [1, 0]))


COUNT_THREADS = """
import os, sys, threading, time
import torch
from alignedreid_lib import images

def count():
    return len(os.listdir("/proc/self/task"))

def more_than_before(most):
    # A thread that has ended may be listed for a moment more; the threads of a team stay.
    for _ in range(600):
        if count() - before <= most:
            break
        time.sleep(0.1)
    return count() - before

torch.set_num_threads(3)
store = images.ImageStore(sys.argv[1:], (256, 128))
torch.zeros(1000, 1000).add_(1)  # the network's team
before = count()
store.fetch(range(6))
decoding = more_than_before(2)
crop = lambda seed: images.augment(store.fetch(range(6)), (384, 128), torch.Generator().manual_seed(seed))
batches = images.prefetch(crop, range(9))
next(batches)
ahead = more_than_before(3)
new = []
other = threading.Thread(target=lambda: new.append(torch.get_num_threads()))
other.start(); other.join()
print(decoding, ahead, torch.get_num_threads(), *new)
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="only Linux lists a process's threads")
def test_threads_that_make_pictures_ready_start_no_teams(pictures):
    """Two that decode and one that works ahead; a team of each would slow the network's steps by a fifth."""
    command = [sys.executable, "-c", COUNT_THREADS, *map(str, pictures)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "3"})
    decoding, ahead, *network = map(int, done.stdout.split())
    # The second that decodes is started only where the first is not idle yet.
    assert decoding in (1, 2) and ahead - decoding in (1, 2) and ahead <= 3 and network == [3, 3], done.stderr


def test_normalize_makes_its_constants_once_and_for_training_too():
    batch = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    images._scale.cache_clear()
    with torch.inference_mode():
        images.normalize(batch)
    mean, std = images._scale(batch.device)
    assert images._scale.cache_info().misses == 1 and not mean.is_inference()
    expected = (batch / 255 - mean / 255) / (std / 255)
    assert torch.allclose(images.normalize(batch), expected, atol=1e-6)
