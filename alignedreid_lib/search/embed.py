"""The features of images from anywhere: files, a folder, arrays, video frames. Explained in notebooks/12."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sized
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from alignedreid_lib import devices
from alignedreid_lib.batches import images as reading
from alignedreid_lib.datasets.jpegs import SUFFIXES, unfit
from alignedreid_lib.datasets.walking import walk_pictures
from alignedreid_lib.errors import InputError
from alignedreid_lib.evaluation.features import Features
from alignedreid_lib.evaluation.forward import run_network
from alignedreid_lib.model import AlignedReID

KINDS = "a path, a PIL image, a uint8 array [h, w, 3] or a uint8 tensor [3, h, w]"


def embed(
    model: AlignedReID,
    images: Any,
    *,
    height: int = 256,
    width: int = 128,
    batch_size: int = 64,
    device: str | None = None,
    precision: str = "auto",
    workers: int = 2,
    progress: bool = False,
) -> Features:
    """The features of any number of images, resized and normalised as those of a dataset.

    Args:
        model: used in evaluation mode; its device and the modes of its modules are restored on return or failure.
        images: one image, or a folder (all images below it, sorted by name), or a batch (uint8 array [N, h, w, 3],
            uint8 tensor [N, 3, h, w]), or any iterable of images, also a generator. An image is a path, a PIL image, a
            uint8 array [h, w, 3] or a uint8 tensor [3, h, w], RGB. Images are read when their batch needs them, so
            memory is used for `batch_size` images and for the features.
        height, width: pixels of the network's input: those of its training.
        batch_size: images at a time; the features do not depend on it.
        device: "auto", "cpu", "cuda", ...; None is the model's device.
        precision: see `devices.choose_precision`.
        workers: threads that read images.
        progress: show a progress bar.

    Returns:
        Features in the given order. `names` are paths, those of a folder relative to it, and "image 0", "image 1", ...
        for what has no path. Identities are -1 and cameras 0, which both mean unknown.

    Raises:
        InputError: no images, something that is not an image or does not decode (the message names it), an unavailable
            device or precision.
    """
    for name, value in (("height", height), ("width", width), ("batch_size", batch_size)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(f"{name} is {value!r}; give a whole number, 1 or more")
    given, names, source = list_images(images)
    items: Iterator[tuple[int, Any]] = enumerate(given)
    first = list(islice(items, 1))
    if not first:
        raise InputError(f"{source}: there are no images in it; give at least one")
    items = chain(iter([first.pop()]), items)
    there = next(model.parameters()).device if device is None else devices.choose_device(device)
    precision = devices.choose_precision(precision, there, width)
    found: list[str] = []

    def batch(some: list[tuple[int, Any]]) -> Tensor:
        found.extend(names[k] if names else _name(image, k) for k, image in some)
        return torch.stack(list(pool.map(lambda one: reading.resize(read_image(*one), (height, width)), some)))

    work = f"{source}: features of {batch_size} images of {height} x {width} at a time"
    batches = iter(lambda: list(islice(items, batch_size)), [])
    total = len(given) if isinstance(given, Sized) else None
    with reading.helpers(workers, "embed") as pool:
        both = run_network(model, batch, batches, there, precision, work, total, progress)
    unknown = np.full(len(found), -1)
    return Features(both[0], both[1], unknown, np.zeros_like(unknown), unknown, found, cameras_known=False)


def list_images(images: Any) -> tuple[Iterable[Any], list[str] | None, str]:
    """What was given as images: one by one, the names of a folder's, and what to call the whole in messages.

    Raises:
        InputError: a folder without images, or something that contains none.
    """
    if isinstance(images, str | os.PathLike):
        path = Path(os.path.expanduser(images))
        if not path.is_dir():
            return [path], [os.fspath(images)], str(path)
        found = sorted(walk_pictures(path, lambda name: ("anybody", None)), key=lambda sighting: sighting.name)
        if not found:
            raise InputError(f"{path} contains no images; known are {', '.join(SUFFIXES)}")
        return [sighting.path for sighting in found], [sighting.name for sighting in found], str(path)
    if isinstance(images, Image.Image):
        return [images], None, "the image"
    if isinstance(images, np.ndarray | Tensor):
        if images.ndim not in (3, 4):
            raise InputError(f"the images have shape {tuple(images.shape)}; give {KINDS}, or several of one size")
        return (images[None] if images.ndim == 3 else images), None, "the images"
    if not isinstance(images, Iterable) or isinstance(images, bytes | dict):
        raise InputError(f"images are of type {type(images).__name__}; give {KINDS}, a folder, or several of these")
    return images, None, "the images"


def _name(image: Any, place: int) -> str:
    return os.fspath(image) if isinstance(image, str | os.PathLike) else f"image {place}"


def read_image(place: int, image: Any) -> Tensor:
    """One image of those that `embed` takes, uint8 [3, h, w].

    Args:
        place: its number, for messages about one without a path.

    Raises:
        InputError: see `embed`.
    """
    if isinstance(image, str | os.PathLike):
        path = Path(os.path.expanduser(image))
        if not path.is_file():  # opening a pipe would wait endlessly
            raise InputError(
                f"{path}: {'a folder, not an image' if path.is_dir() else 'no such image or folder'}; give {KINDS}"
            )
        return reading.decode(path)
    if isinstance(image, Image.Image):
        if image.mode[:1] in ("I", "F"):  # its values above 255 would turn white
            raise InputError(f"image {place} {unfit(image)}; convert it to RGB, values 0 to 255")
        try:
            return reading.pixels_of(image)
        except MemoryError:
            raise
        except Exception as error:  # a file is decoded only now, and a damaged one can fail in any way
            raise InputError(f"image {place} does not decode ({error}); give a whole one") from None
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3:
        image = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
    rgb = isinstance(image, Tensor) and image.dtype == torch.uint8 and image.ndim == 3 and len(image) == 3
    if rgb and image.numel():
        return image.cpu()
    if isinstance(image, np.ndarray | Tensor):
        given = f"{image.dtype} {tuple(image.shape)}"
        raise InputError(f"image {place} is {given}; give {KINDS}, values 0 to 255, RGB")
    raise InputError(f"image {place} is of type {type(image).__name__}; give {KINDS}")
