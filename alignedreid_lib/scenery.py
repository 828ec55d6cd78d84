"""The cameras which watch the drawn pedestrians: each has a street of its own, a light, a tint and a lens.

Shown in notebooks/01_datasets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from alignedreid_lib.painting import Array, Box, Colour

WIDTH, HEIGHT = 64, 128  # of a picture, in pixels, as in Market-1501
OVERSAMPLING = 2  # canvas pixels a picture pixel, each way
UNIT = 220  # street pixels a person's height
STREET = (1408, 704)  # street pixels, width and height
WALL_FOOT = 410  # street pixels from the top to where the ground begins
SCENES = ("shop", "park", "plaza", "brick", "glass", "road", "hedge", "arcade")


@dataclass(frozen=True)
class Camera:
    """A camera: what is behind the people it sees, and what it does to their colours."""

    street: Image.Image
    tint: Colour  # gain of red, green and blue
    exposure: float
    contrast: float
    saturation: float
    light: float  # where the light comes from, -1 left to 1 right
    pitch: float  # how far it looks down, radians
    blur: float  # picture pixels
    noise: float
    detail: float  # resolution, as a part of the picture's
    yaw: float  # the way most people face, radians

    @classmethod
    def sample(cls, rng: np.random.Generator, scene: str) -> Camera:
        """A camera in front of the given scene (one of SCENES)."""
        warmth, green = rng.normal(0, 0.14), rng.normal(0, 0.06)
        return cls(
            street=draw_street(scene, rng),
            tint=(float(np.exp(warmth)), float(np.exp(green)), float(np.exp(-warmth))),
            exposure=float(rng.uniform(0.75, 1.25)),
            contrast=float(rng.uniform(0.8, 1.2)),
            saturation=float(rng.uniform(0.55, 1.15)),
            light=float(rng.uniform(-1, 1)),
            pitch=float(rng.uniform(0.05, 0.28)),
            blur=float(rng.uniform(0.2, 0.7)),
            noise=float(rng.uniform(0.005, 0.025)),
            detail=float(rng.uniform(0.55, 1.0)),
            yaw=float(rng.uniform(0, 2 * np.pi)),
        )

    def background(self, box: Box, place: tuple[float, float], scale: float) -> Array:
        """The street behind a box, [2 * HEIGHT, 2 * WIDTH, 3] in [0, 1].

        Args:
            box: what to show, in heights of the person.
            place: where the person's feet are, street pixels.
            scale: the person's height over UNIT.
        """
        unit = UNIT * scale
        left, top = place[0] + box.left * unit, place[1] - box.top * unit
        corners = (left, top, left + box.width * unit, top + box.height * unit)
        size = (WIDTH * OVERSAMPLING, HEIGHT * OVERSAMPLING)
        seen = self.street.transform(size, Image.Transform.EXTENT, corners, Image.Resampling.BILINEAR)
        return np.asarray(seen, np.float32) / 255

    def expose(self, pixels: Array, gain: float, rng: np.random.Generator) -> np.ndarray:
        """What the camera records of a painted canvas: uint8 [HEIGHT, WIDTH, 3]."""
        pixels = pixels.reshape(HEIGHT, OVERSAMPLING, WIDTH, OVERSAMPLING, 3).mean((1, 3))
        grey = pixels.mean(2, keepdims=True)
        pixels = grey + (pixels - grey) * self.saturation
        pixels = pixels * (np.asarray(self.tint, np.float32) * (self.exposure * gain))
        pixels = 0.45 + (pixels - 0.45) * self.contrast
        picture = Image.fromarray((np.clip(pixels, 0, 1) * 255).astype(np.uint8))
        if self.detail < 0.98:
            small = (round(WIDTH * self.detail), round(HEIGHT * self.detail))
            picture = picture.resize(small, Image.Resampling.BOX).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
        picture = picture.filter(ImageFilter.GaussianBlur(self.blur))
        noise = rng.normal(0, self.noise * 255, (HEIGHT, WIDTH, 1)).astype(np.float32)
        return np.clip(np.asarray(picture, np.float32) + noise, 0, 255).astype(np.uint8)


def _mixed(colour, rng, spread=12):
    return tuple(int(value) for value in np.clip(np.asarray(colour) + rng.integers(-spread, spread + 1), 0, 255))


def draw_street(scene: str, rng: np.random.Generator) -> Image.Image:
    """A street picture of the given kind: a wall, whatever stands before it, and the ground."""
    width, height = STREET
    street = Image.new("RGB", STREET, _mixed((190, 200, 212), rng))
    draw = ImageDraw.Draw(street)
    _draw_wall(draw, scene, rng)
    _draw_ground(draw, scene, rng)
    _draw_things(draw, scene, rng)
    street = street.filter(ImageFilter.GaussianBlur(1.2))
    pixels = np.asarray(street, np.float32)
    for size in (8, 40):  # stains and grain
        coarse = rng.normal(0, 6, (height // size, width // size)).astype(np.float32)
        pixels = pixels + np.asarray(Image.fromarray(coarse).resize(STREET, Image.Resampling.BICUBIC))[..., None]
    light = np.linspace(rng.uniform(0.8, 1.1), rng.uniform(0.8, 1.1), width, dtype=np.float32)
    return Image.fromarray(np.clip(pixels * light[None, :, None], 0, 255).astype(np.uint8))


def _draw_wall(draw, scene, rng) -> None:
    width = STREET[0]
    if scene in ("park", "hedge", "road"):
        for _ in range(260):  # leaves: far crowns
            x, y, r = rng.uniform(0, width), rng.uniform(60, WALL_FOOT), rng.uniform(15, 60)
            green = _mixed((62, 88, 50) if scene != "road" else (96, 110, 92), rng, 22)
            draw.ellipse((x - r, y - r, x + r, y + r), fill=green)
        if scene == "hedge":
            draw.rectangle((0, 230, width, WALL_FOOT), fill=(48, 70, 40))
            for _ in range(900):
                x, y, r = rng.uniform(0, width), rng.uniform(225, WALL_FOOT), rng.uniform(4, 11)
                draw.ellipse((x - r, y - r, x + r, y + r), fill=_mixed((56, 82, 46), rng, 20))
        return
    wall = {"shop": (150, 138, 122), "plaza": (176, 172, 162), "brick": (140, 86, 70), "glass": (104, 122, 134),
            "arcade": (186, 170, 142)}[scene]
    draw.rectangle((0, 0, width, WALL_FOOT), fill=_mixed(wall, rng))
    if scene == "brick":
        for row, y in enumerate(range(0, WALL_FOOT, 14)):
            for x in range(-20 * (row % 2), width, 40):
                draw.rectangle((x, y, x + 37, y + 11), fill=_mixed(wall, rng, 14))
    step = int(rng.integers(150, 230))
    for x in range(int(rng.integers(0, step)) - step, width, step):
        if scene == "shop":
            draw.rectangle((x + 12, 120, x + step - 12, WALL_FOOT - 30), fill=_mixed((58, 66, 74), rng, 20))
            for _ in range(7):
                a, b = rng.uniform(x + 18, x + step - 40), rng.uniform(150, 330)
                draw.rectangle((a, b, a + rng.uniform(10, 28), b + rng.uniform(15, 60)), fill=_mixed((150, 130, 110), rng, 70))
            draw.rectangle((x, 84, x + step, 120), fill=_mixed((120, 70, 60), rng, 50))
        elif scene == "glass":
            draw.rectangle((x + 4, 0, x + step - 4, WALL_FOOT - 8), fill=_mixed((92, 116, 132), rng, 16))
            draw.polygon((x + 20, 0, x + 70, 0, x + step - 40, WALL_FOOT - 8, x + step - 90, WALL_FOOT - 8), fill=_mixed((124, 148, 160), rng))
            draw.line((x + 4, 200, x + step - 4, 200), fill=(60, 68, 74), width=5)
        elif scene == "arcade":
            draw.rectangle((x + 40, 130, x + step - 20, WALL_FOOT), fill=(74, 66, 58))
            draw.ellipse((x + 40, 70, x + step - 20, 200), fill=(74, 66, 58))
        elif scene == "plaza":
            draw.rectangle((x + 50, 40, x + step - 50, 190), fill=_mixed((84, 92, 100), rng))
            draw.rectangle((x, 380, x + step, WALL_FOOT), fill=_mixed((120, 116, 108), rng))
        elif scene == "brick":
            draw.rectangle((x + 60, 60, x + step - 40, 220), fill=(70, 78, 84), outline=(214, 208, 196), width=7)


def _draw_ground(draw, scene, rng) -> None:
    width, height = STREET
    ground = {"park": (122, 130, 82), "hedge": (150, 142, 124), "road": (94, 95, 98), "plaza": (168, 160, 148),
              "shop": (146, 140, 134), "brick": (128, 124, 120), "glass": (158, 158, 160), "arcade": (164, 144, 118)}[scene]
    draw.rectangle((0, WALL_FOOT, width, height), fill=_mixed(ground, rng))
    darker = tuple(int(value * 0.86) for value in ground)
    if scene == "park":
        draw.polygon((0, 500, width, 455, width, 620, 0, 690), fill=_mixed((178, 164, 136), rng))
        for _ in range(1500):
            x, y = rng.uniform(0, width), rng.uniform(WALL_FOOT, height)
            draw.line((x, y, x + rng.uniform(-3, 3), y - rng.uniform(3, 9)), fill=_mixed((110, 122, 72), rng, 24))
        return
    if scene == "road":
        draw.rectangle((0, WALL_FOOT, width, WALL_FOOT + 45), fill=_mixed((160, 156, 148), rng))
        draw.line((0, WALL_FOOT + 48, width, WALL_FOOT + 48), fill=(196, 192, 184), width=6)
        for x in range(0, width, 190):
            draw.polygon((x, 600, x + 100, 600, x + 92, 614, x - 10, 614), fill=(206, 204, 196))
        return
    row, gap = float(WALL_FOOT), 14.0
    while row < height:  # paving, nearer rows deeper
        draw.line((0, row, width, row), fill=darker, width=2)
        row, gap = row + gap, gap * 1.22
    for x in range(-width, 2 * width, 64):
        draw.line((x, WALL_FOOT, width / 2 + (x - width / 2) * 1.9, height), fill=darker, width=2)


def _draw_things(draw, scene, rng) -> None:
    width = STREET[0]
    for _ in range(int(rng.integers(2, 5))):  # trunks, bins, bollards, signs, parked bicycles
        x, kind = rng.uniform(40, width - 40), rng.integers(4)
        foot = WALL_FOOT + rng.uniform(5, 45)
        if kind == 0:
            draw.rectangle((x - 13, 0, x + 13, foot), fill=_mixed((84, 70, 56), rng))
        elif kind == 1:
            draw.rectangle((x - 24, foot - 95, x + 24, foot), fill=_mixed((60, 84, 70), rng, 40))
            draw.rectangle((x - 28, foot - 103, x + 28, foot - 92), fill=(50, 54, 54))
        elif kind == 2:
            draw.rectangle((x - 5, foot - 330, x + 5, foot), fill=(120, 122, 124))
            draw.rectangle((x - 30, foot - 330, x + 30, foot - 270), fill=_mixed((60, 90, 150), rng, 60))
        else:
            for wheel in (x - 42, x + 42):
                draw.ellipse((wheel - 34, foot - 68, wheel + 34, foot), outline=(44, 44, 46), width=4)
            draw.line((x - 42, foot - 34, x - 10, foot - 90, x + 34, foot - 84, x + 42, foot - 34), fill=_mixed((150, 60, 50), rng, 60), width=5)
