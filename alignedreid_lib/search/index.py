"""An index: the features of a collection of images, searched, changed, saved and loaded. Explained in notebooks/12."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alignedreid_lib.batches.images import MEAN, STD
from alignedreid_lib.errors import InputError
from alignedreid_lib.evaluation import distance_matrix, reranked_matrix
from alignedreid_lib.evaluation.features import Features
from alignedreid_lib.model import AlignedReID
from alignedreid_lib.search import storage
from alignedreid_lib.search.answers import Answer, Match
from alignedreid_lib.search.embed import embed
from alignedreid_lib.search.labels import Label, joined, listed, named, numbers
from alignedreid_lib.search.nearest import nearest
from alignedreid_lib.search.threshold import Threshold, nearest_distances

DISTANCES = ("global", "local", "global+local")
Labels = list[Label] | None


class Index:
    """The features of N images, and the network that they are from. Made by `build` and `load`.

    Attributes:
        model: the network; queries go through it.
        features: identities and cameras are numbers in the order of the sorted labels; -1 and 0 where unknown.
        ids, cameras: labels of the N images; None where unknown.
        about: the network, the image size and the precision, see `storage.About`.
        threshold: if there is one, searches with its distance answer only with images up to it, see `Threshold`.
    """

    def __init__(self, model: AlignedReID, features: Features, ids: Labels, cameras: Labels, about: storage.About):
        self.model, self.about, self.threshold = model, about, about.threshold
        self._fill(features, ids, cameras)

    def _fill(self, features: Features, ids: Labels, cameras: Labels) -> None:
        self.ids, self.cameras = ids, cameras
        self.features = dataclasses.replace(
            features,
            ids=numbers(ids, len(features), -1),
            cameras=numbers(cameras, len(features), 0),
            cameras_known=cameras is not None,
        )

    def __len__(self) -> int:
        return len(self.features)

    @classmethod
    def build(
        cls,
        model: AlignedReID,
        images: Any,
        ids: Iterable[Label] | None = None,
        cameras: Iterable[Label] | None = None,
        *,
        names: Sequence[str] | None = None,
        height: int = 256,
        width: int = 128,
        precision: str = "float32",
        **how: Any,
    ) -> Index:
        """An index of images.

        Args:
            model: in any mode; see `embed`.
            images: see `embed`.
            ids: the person on each image, numbers or texts; None if they are not known. A threshold needs them.
            cameras: which camera took each image; likewise.
            names: a different one for each image; None for their paths, see `embed`.
            height, width: pixels of the network's input: those of its training.
            precision: see `embed`; by default the one in which machines differ by rounding alone.
            how: `batch_size`, `device`, `workers`, `progress` of `embed`.

        Raises:
            InputError: see `embed`; or ids, cameras or names of a different number than images, or a name twice.
        """
        about = storage.About(storage.fingerprint(model), height, width, MEAN, STD, precision)
        features = embed(model, images, height=height, width=width, precision=precision, **how)
        features = named(features, names, [])
        return cls(model, features, listed("ids", ids, features), listed("cameras", cameras, features), about)

    def search(
        self, images: Any, top: int = 10, distance: str = "global", rerank: bool = False, *, everybody: bool = False,
        k1: int = 20, k2: int = 6, lambda_value: float = 0.3, **how: Any,
    ) -> list[Answer]:  # fmt: skip
        """The nearest images of the index to each query.

        With a threshold for this distance, images beyond it are left out, and an answer without images means nobody.

        Args:
            images: the queries, see `embed`; or their `Features`, computed before.
            top: the largest number of images per answer.
            distance: global, local, or global+local.
            rerank: sort by re-ranked distances (notebooks/09). The queries are compared with each other, too, and all
                images of the index with each other, so time grows with the square of their number.
            everybody: ignore the threshold.
            k1, k2, lambda_value: see `reranking.rerank`.
            how: `batch_size`, `device`, `workers`, `progress` of `embed`.

        Raises:
            InputError: see `embed`; or an unknown distance, an empty index, or a threshold for a different distance.
        """
        if isinstance(top, bool) or not isinstance(top, int) or top < 1:
            raise InputError(f"top is {top!r}; give how many images an answer may have, 1 or more")
        self._check_distance(distance)
        limit = float(np.inf)
        if self.threshold is not None and not everybody:
            if self.threshold.distance != distance:
                raise InputError(
                    f"the threshold of this index is for the distance {self.threshold.distance}, not {distance}; "
                    "choose one for it with choose_threshold, or search with everybody=True"
                )
            limit = self.threshold.value
        if not isinstance(images, Features):
            images = self._embed(images, **how)
        if rerank:
            again = reranked_matrix(distance, images, self.features, k1, k2, lambda_value)
            if limit < np.inf:
                again[distance_matrix(distance, images, self.features).numpy() > limit] = np.inf
            rows = again.argsort(axis=1, kind="stable")[:, :top]
            distances, limit = np.take_along_axis(again, rows, axis=1), float(np.finfo(np.float32).max)
        else:
            rows, distances = nearest(images, self.features, distance, top)
        return [
            Answer(name, [self._match(row, d) for row, d in zip(*found, strict=True) if d <= limit])
            for name, *found in zip(images.names, rows.tolist(), distances.tolist(), strict=True)
        ]

    def _match(self, row: int, distance: float) -> Match:
        person, camera = (None if labels is None else labels[row] for labels in (self.ids, self.cameras))
        return Match(self.features.names[row], person, camera, distance, row)

    def _check_distance(self, distance: str) -> None:
        if distance not in DISTANCES:
            raise InputError(f"distance {distance!r} is not known: choose one of {', '.join(DISTANCES)}")
        if not len(self):
            raise InputError("the index is empty; add images first")
        if distance != "global" and not self.features.local_features.numel():
            raise InputError(f"distance {distance!r} needs local features, and this network has none; use global")

    def choose_threshold(self, false_alarm_rate: float = 0.05, distance: str = "global", data: str = "") -> Threshold:
        """Choose the index's threshold from its own images, each searched among the others, and keep it.

        Args:
            false_alarm_rate: share of the searches for people who are not in the index that may be answered.
            distance: global, local, or global+local.
            data: what the images are, in words, for those who read the threshold later.

        Raises:
            InputError: identities are not known, or see `nearest_distances` and `Threshold.choose`.
        """
        self._check_distance(distance)
        if self.ids is None:
            raise InputError("a threshold needs to know who is on each image; build the index with ids=...")
        found = nearest_distances(self.features, None, distance)
        data = data or f"the index itself, {len(set(self.ids))} people"
        self.threshold = Threshold.choose(found, false_alarm_rate, distance, len(self), data)
        return self.threshold

    def add(
        self,
        images: Any,
        ids: Iterable[Label] | None = None,
        cameras: Iterable[Label] | None = None,
        *,
        names: Sequence[str] | None = None,
        **how: Any,
    ) -> None:
        """Add images at the end; the threshold stays. Arguments and errors are those of `build`.

        Labels have to be given as for the images that are there: with ids if those have ids, and likewise for cameras.
        An index that was loaded is read into memory by this.
        """
        new = named(self._embed(images, **how), names, self.features.names)
        both = {}
        for name, there, given in (("ids", self.ids, ids), ("cameras", self.cameras, cameras)):
            labels = listed(name, given, new)
            if len(self) and (there is None) != (labels is None):
                raise InputError(f"the images of the index have {'no ' if there is None else ''}{name}; give the same")
            both[name] = labels if there is None else [*there, *(labels or [])]
        self._fill(joined(self.features, new), both["ids"], both["cameras"])

    def remove(self, names: Iterable[str] = (), ids: Iterable[Label] = ()) -> int:
        """Remove images by their names, or all images of some people; how many were removed.

        A file that was saved before still has them: save again, and delete copies.

        Raises:
            InputError: a name or an identity that is not in the index.
        """
        gone_names, gone_ids = ({some} if isinstance(some, str | int) else set(some) for some in (names, ids))
        for what, gone, there in (("name", gone_names, self.features.names), ("id", gone_ids, self.ids or [])):
            if absent := sorted(map(str, gone.difference(there))):
                raise InputError(f"no image of the index has the {what} {absent[0]!r} ({len(absent)} absent)")
        people: Sequence[Label | None] = self.ids or [None] * len(self)
        kept = [
            row
            for row, (name, person) in enumerate(zip(self.features.names, people, strict=True))
            if name not in gone_names and person not in gone_ids
        ]
        count = len(self) - len(kept)
        labels = [None if some is None else [some[k] for k in kept] for some in (self.ids, self.cameras)]
        self._fill(self.features[np.array(kept, int)], labels[0], labels[1])
        return count

    def _embed(self, images: Any, **how: Any) -> Features:
        """Features as those of the index."""
        about = self.about
        return embed(self.model, images, height=about.height, width=about.width, precision=about.precision, **how)

    def _about(self) -> storage.About:
        return dataclasses.replace(self.about, threshold=self.threshold)

    def save(self, path: str | Path) -> None:
        """Write the index to one file; an interrupted save leaves the old file.

        Raises:
            InputError: it cannot be written.
        """
        texts = storage.Texts(self.features.names, self.ids, self.cameras)
        storage.write_index(Path(os.path.expanduser(path)), self._about(), texts, self.features)

    @classmethod
    def load(cls, path: str | Path, model: AlignedReID) -> Index:
        """Open a file that `save` wrote; features are mapped from it, not read into memory.

        Args:
            model: the network of the index, with the same weights.

        Raises:
            InputError: see `storage.read_index`; or an index of a different network or different weights.
        """
        path = Path(os.path.expanduser(path))
        about, texts, features = storage.read_index(path)
        own = storage.fingerprint(model)
        if about.fingerprint != own:
            raise InputError(
                f"{path}: built with different weights or a different network (fingerprint {about.fingerprint[:12]}; "
                f"this model's is {own[:12]}); load the weights it was built with, or build the index again"
            )
        return cls(model, features, texts.ids, texts.cameras, about)
