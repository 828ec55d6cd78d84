"""Batches of P identities x K images, from which a triplet loss takes its triplets. Derived in notebooks/02_batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, get_args

import numpy as np

from alignedreid_lib.errors import InputError

Draw = Literal["cover", "replace"]


class IdentitySampler:
    """Index batches in which P identities appear with K images each; one pass over the identities per epoch.

    Each pass shuffles the identities and takes P at a time. An identity with K images or more has none of them
    repeated. Every `iter()` starts the next epoch. A batch depends only on seed and epoch, so that a resumed training
    gets the same batches as an uninterrupted one.

    Args:
        labels: [N] identity label of each image.
        ids_per_batch: P.
        images_per_id: K.
        seed: of all shuffles.
        keep_last_batch: also give the identities left over at the end of a pass, if there are two or more, as a smaller
            batch, as the original reproduction does.
        draw: how an identity with fewer than K images fills its K images. "cover": each image once before any is
            repeated; "replace": drawn with replacement, as the original reproduction does.
        processes: the number of identities in every batch is a multiple of this, so it has to divide P.

    Raises:
        InputError: P is larger than the number of identities, or K larger than any identity's images, or a setting is
            not of its kind.

    Source: Hermans et al. 2017, section 2.
    """

    def __init__(
        self,
        labels: Sequence[int] | np.ndarray,
        ids_per_batch: int,
        images_per_id: int,
        seed: int,
        keep_last_batch: bool = False,
        draw: Draw = "cover",
        processes: int = 1,
    ) -> None:
        labels = np.asarray(labels)
        if labels.ndim != 1 or len(labels) == 0:
            raise InputError(f"labels have shape {labels.shape}; give one label per image, at least one image")
        given = {"ids_per_batch": ids_per_batch, "images_per_id": images_per_id, "processes": processes, "seed": seed}
        for name, value in given.items():
            least = 0 if name == "seed" else 1
            if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
                raise InputError(f"{name} is {value!r}; it has to be an integer of {least} or more")
        if ids_per_batch % processes:
            wanted = f"a divisor of ids_per_batch, which is {ids_per_batch}"
            raise InputError(f"processes is {processes}; it has to be {wanted}")
        if draw not in get_args(Draw):
            raise InputError(f"draw is {draw!r}; it has to be 'cover' or 'replace'")
        _, label_of, counts = np.unique(labels, return_inverse=True, return_counts=True)
        if ids_per_batch > len(counts):
            if len(counts) == 1:
                raise InputError("the data has 1 identity, and a batch needs 2; add people, or test on fewer of them")
            raise InputError(
                f"ids_per_batch is {ids_per_batch}, but the data has {len(counts)} identities; "
                f"lower ids_per_batch to {len(counts)} or less"
            )
        if images_per_id > counts.max():
            if counts.max() == 1:
                raise InputError("no identity of the data has more than 1 image, and a triplet needs 2; add images")
            raise InputError(
                f"images_per_id is {images_per_id}, but no identity has more than {counts.max()} images; "
                f"lower images_per_id to {counts.max()} or less"
            )
        order = np.argsort(label_of, kind="stable")
        self._images = np.split(order, np.cumsum(counts)[:-1])  # the image indices of each identity
        self.ids_per_batch = ids_per_batch
        self.images_per_id = images_per_id
        self.seed = seed
        self.draw = draw
        left = len(counts) % ids_per_batch // processes * processes
        self._last = left if keep_last_batch and left >= 2 else 0  # identities of the smaller batch; 0 for none
        self._next_epoch = 1

    def __len__(self) -> int:
        """Batches per epoch."""
        return len(self._images) // self.ids_per_batch + (self._last > 0)

    @property
    def images_per_epoch(self) -> int:
        """The images of all batches of an epoch."""
        return (len(self._images) // self.ids_per_batch * self.ids_per_batch + self._last) * self.images_per_id

    def set_epoch(self, epoch: int) -> None:
        """The next `iter()` gives epoch `epoch` (counted from 1)."""
        self._next_epoch = epoch

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yields int64 [P * K], or fewer in the last: the K images of the first identity, then the second's, ..."""
        rng = np.random.default_rng([self.seed, self._next_epoch])
        self._next_epoch += 1
        ids = rng.permutation(len(self._images))[: self.images_per_epoch // self.images_per_id]
        for begin in range(0, len(ids), self.ids_per_batch):
            chosen = ids[begin : begin + self.ids_per_batch]
            yield np.concatenate([self._draw(self._images[i], rng) for i in chosen])

    def _draw(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if len(images) >= self.images_per_id:
            return rng.choice(images, self.images_per_id, replace=False)
        if self.draw == "replace":
            return rng.choice(images, self.images_per_id, replace=True)
        extra = rng.choice(images, self.images_per_id - len(images), replace=True)
        return rng.permutation(np.concatenate([images, extra]))
