"""Draw a `Person` as a camera sees them in a `View`. Shown in notebooks/01_datasets."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from alignedreid_lib.synthetic.body import Body
from alignedreid_lib.synthetic.painting import Box, Canvas, Fabric
from alignedreid_lib.synthetic.people import TOPS, Person
from alignedreid_lib.synthetic.scenery import Camera
from alignedreid_lib.synthetic.views import View

__all__ = ["TRUE_BOX", "Box", "Camera", "Person", "View", "draw"]

TRUE_BOX = Box(-0.27, 1.04, 0.54, 1.08)  # a perfect detection


def draw(person: Person | None, view: View, box: Box = TRUE_BOX) -> np.ndarray:
    """The image of a person (or of nobody) in a view, cropped by a box: uint8 [128, 64, 3]."""
    rng = np.random.default_rng(view.seed)
    background = view.camera.background(box, view.place, view.scale)
    folds = Image.fromarray(rng.normal(0, 0.07, (24, 10)).astype(np.float32))
    folds = folds.resize((background.shape[1], background.shape[0]), Image.Resampling.BICUBIC)
    canvas = Canvas(background, box, view.camera.light, np.asarray(folds))
    other, side = Person.sample(rng), float(rng.choice([-1, 1]) * rng.uniform(0.24, 0.4))
    if view.obstacle == "behind":
        _stand(canvas, other, View.sample(rng, view.camera), (side, -0.5))
    if person is not None:
        _stand(canvas, person, view, (0.0, 0.0))
    if view.obstacle == "beside":
        _stand(canvas, other, View.sample(rng, view.camera), (side, 0.25))
    elif view.obstacle in ("pole", "bush", "car"):
        _obstruct(canvas, view.obstacle, side, rng)
    return view.camera.expose(canvas.pixels, view.gain, rng)


def _stand(canvas: Canvas, person: Person, view: View, at: tuple[float, float]) -> None:
    """Paint a person whose feet are at (x, y)."""
    canvas.shadow((at[0] - 0.07 * view.camera.light, -at[1] * math.sin(view.camera.pitch) + 0.008), (0.22, 0.04), 0.55)
    body = Body(canvas, person, view, at)
    for paint in (body.legs, body.trunk, body.arms, body.carried, body.head):
        paint()
    for _, paint in sorted(body.parts, key=lambda part: part[0]):
        paint()


def _obstruct(canvas: Canvas, kind: str, side: float, rng: np.random.Generator) -> None:
    """Paint the obstacle between the camera and the person."""
    if kind == "pole":
        canvas.lathe([-0.3, 2.0], [side * 0.55] * 2, [0.03] * 2, Fabric((0.42, 0.43, 0.42)))
    elif kind == "bush":
        for z in np.linspace(0.3, -0.1, 60).tolist():  # leaves, the upper ones behind
            x = side * 0.5 + float(rng.normal(0, 0.13 - 0.2 * max(z, 0)))
            r, g = float(rng.uniform(0.018, 0.036)), float(rng.uniform(0.18, 0.40) + 0.2 * z)
            canvas.blob((x, z), (r, 0.7 * r), Fabric((g * 0.7, g, g * 0.5)))
    else:
        paint = Fabric(TOPS[rng.integers(len(TOPS))])
        x, way = side * 1.3, math.copysign(1.0, side)
        canvas.blob((x + 0.3 * way, 0.30), (0.42, 0.17), Fabric((0.25, 0.3, 0.34)), power=3)
        canvas.blob((x + 0.2 * way, 0.17), (0.56, 0.13), paint, power=4)
        canvas.blob((x - 0.1 * way, 0.06), (0.085, 0.085), Fabric((0.09, 0.09, 0.1)))
        canvas.blob((x - 0.1 * way, 0.06), (0.045, 0.045), Fabric((0.5, 0.5, 0.52)))
