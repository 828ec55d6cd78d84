"""The cameras of the drawn pedestrians: each has its street, light, tint and lens. Shown in notebooks/01_datasets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from alignedreid_lib.synthetic.painting import Array, Box, Colour

WIDTH, HEIGHT = 64, 128  # of an image, in pixels, as in Market-1501
UNIT = 220  # street pixels a person's height
STREET = (1408, 768)  # street pixels, width and height
WALL_FOOT = 410  # street pixels from the top to where the ground begins
SCENES = ("shop", "park", "plaza", "brick", "glass", "road", "hedge", "arcade")


@dataclass(frozen=True)
class Camera:
    """A camera: its background, and how it changes colours."""

    street: Image.Image
    tint: Colour  # gain of red, green and blue
    exposure: float
    contrast: float
    saturation: float
    light: float  # where the light comes from, -1 left to 1 right
    pitch: float  # how far it looks down, radians
    blur: float  # image pixels
    noise: float
    detail: float  # resolution, as a share of the image's
    yaw: float  # the way most people face, radians

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Camera:
        """A camera that watches some street."""
        warmth, green = rng.normal(0, 0.04), rng.normal(0, 0.02)
        return cls(
            street=draw_street(rng),
            tint=(float(np.exp(warmth)), float(np.exp(green)), float(np.exp(-warmth))),
            exposure=float(rng.uniform(0.92, 1.08)),
            contrast=float(rng.uniform(0.93, 1.07)),
            saturation=float(rng.uniform(0.85, 1.1)),
            light=float(rng.uniform(-1, 1)),
            pitch=float(rng.uniform(0.05, 0.28)),
            blur=float(rng.uniform(0.1, 0.4)),
            noise=float(rng.uniform(0.002, 0.010)),
            detail=float(rng.uniform(0.7, 1.0)),
            yaw=float(rng.uniform(0, 2 * np.pi)),
        )

    def background(self, box: Box, place: tuple[float, float], scale: float) -> Array:
        """The street behind a box, [2 * HEIGHT, 2 * WIDTH, 3] in [0, 1]: painted at twice an image's size.

        Args:
            box: what to show, in heights of the person.
            place: where the person's feet are, street pixels.
            scale: the person's height over UNIT.
        """
        unit = UNIT * scale
        wide, high = min(box.width * unit, STREET[0]), min(box.height * unit, STREET[1])
        left = min(max(place[0] + box.left * unit, 0), STREET[0] - wide)
        top = min(max(place[1] - box.top * unit, 0), STREET[1] - high)
        seen = self.street.resize(
            (2 * WIDTH, 2 * HEIGHT), Image.Resampling.BILINEAR, (left, top, left + wide, top + high)
        )
        return np.asarray(seen, np.float32) * np.float32(1 / 255)

    def expose(self, canvas: np.ndarray, gain: float, rng: np.random.Generator) -> np.ndarray:
        """What the camera records of a painted canvas: uint8 [HEIGHT, WIDTH, 3]."""
        rows = canvas[0::2] + canvas[1::2]
        pixels = 0.25 * (rows[:, 0::2] + rows[:, 1::2])
        grey = ((pixels[..., 0] + pixels[..., 1] + pixels[..., 2]) / 3)[..., None]
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


def _mixed(colour: tuple[int, int, int], rng: np.random.Generator, spread: int = 12) -> tuple[int, ...]:
    """The colour, somewhat lighter or darker."""
    lighter = int(rng.integers(-spread, spread + 1))
    return tuple(min(max(value + lighter, 0), 255) for value in colour)


def draw_street(rng: np.random.Generator) -> Image.Image:
    """A painted street: walls, objects in front of them, and the ground, of several kinds side by side."""
    street = Image.new("RGB", STREET)
    width = STREET[0] // len(SCENES) * 2
    for i, scene in enumerate(rng.permutation(SCENES)[: len(SCENES) // 2]):
        part = Image.new("RGB", (width, STREET[1]), _mixed((190, 200, 212), rng))
        draw = ImageDraw.Draw(part)
        _draw_wall(draw, scene, width, rng)
        _draw_ground(draw, scene, width, rng)
        _draw_things(draw, width, rng)
        street.paste(part, (i * width, 0))
    small = (STREET[0] // 8, STREET[1] // 8)
    stains = Image.fromarray(rng.normal(0, 4, (18, 32)).astype(np.float32)).resize(small, Image.Resampling.BICUBIC)
    light = 255 * np.linspace(rng.uniform(0.87, 0.99), rng.uniform(0.87, 0.99), small[0], dtype=np.float32)
    light = light + np.asarray(stains) + rng.normal(0, 4, small[::-1])
    shade = Image.fromarray(np.clip(light, 0, 255).astype(np.uint8)).resize(STREET, Image.Resampling.BILINEAR)
    return ImageChops.multiply(street.filter(ImageFilter.BoxBlur(0.7)), Image.merge("RGB", [shade] * 3))


def _draw_wall(draw, scene, width, rng) -> None:
    if scene in ("park", "hedge", "road"):
        for _ in range(80):  # leaves: far crowns
            x, y, r = rng.uniform(0, width), rng.uniform(60, WALL_FOOT), rng.uniform(15, 60)
            green = _mixed((92, 104, 80) if scene != "road" else (110, 116, 104), rng, 22)
            draw.ellipse((x - r, y - r, x + r, y + r), fill=green)
        if scene == "hedge":
            draw.rectangle((0, 230, width, WALL_FOOT), fill=(78, 90, 68))
            for _ in range(300):
                x, y, r = rng.uniform(0, width), rng.uniform(225, WALL_FOOT), rng.uniform(4, 11)
                draw.ellipse((x - r, y - r, x + r, y + r), fill=_mixed((86, 98, 74), rng, 20))
        return
    wall = {
        "shop": (150, 142, 132),
        "plaza": (160, 156, 150),
        "brick": (142, 112, 100),
        "glass": (120, 128, 134),
        "arcade": (160, 152, 138),
    }[scene]
    draw.rectangle((0, 0, width, WALL_FOOT), fill=_mixed(wall, rng))
    if scene == "brick":
        for row, y in enumerate(range(0, WALL_FOOT, 14)):
            for x in range(-20 * (row % 2), width, 40):
                draw.rectangle((x, y, x + 37, y + 11), fill=_mixed(wall, rng, 14))
    step = int(rng.integers(150, 230))
    for x in range(int(rng.integers(0, step)) - step, width, step):
        if scene == "shop":
            draw.rectangle((x + 12, 120, x + step - 12, WALL_FOOT - 30), fill=_mixed((92, 98, 100), rng, 16))
            for _ in range(7):
                a, b = rng.uniform(x + 18, x + step - 40), rng.uniform(150, 330)
                draw.rectangle(
                    (a, b, a + rng.uniform(10, 28), b + rng.uniform(15, 60)), fill=_mixed((150, 130, 110), rng, 70)
                )
            draw.rectangle((x, 84, x + step, 120), fill=_mixed((120, 84, 74), rng, 36))
        elif scene == "glass":
            draw.rectangle((x + 4, 0, x + step - 4, WALL_FOOT - 8), fill=_mixed((116, 126, 132), rng, 12))
            draw.polygon(
                (x + 20, 0, x + 70, 0, x + step - 40, WALL_FOOT - 8, x + step - 90, WALL_FOOT - 8),
                fill=_mixed((136, 150, 158), rng),
            )
            draw.line((x + 4, 200, x + step - 4, 200), fill=(60, 68, 74), width=5)
        elif scene == "arcade":
            draw.rectangle((x + 40, 130, x + step - 20, WALL_FOOT), fill=(108, 102, 94))
            draw.ellipse((x + 40, 70, x + step - 20, 200), fill=(108, 102, 94))
        elif scene == "plaza":
            draw.rectangle((x + 50, 40, x + step - 50, 190), fill=_mixed((104, 110, 116), rng))
            draw.rectangle((x, 380, x + step, WALL_FOOT), fill=_mixed((120, 116, 108), rng))
        elif scene == "brick":
            draw.rectangle((x + 60, 60, x + step - 40, 220), fill=(92, 98, 102), outline=(214, 208, 196), width=7)


def _draw_ground(draw, scene, width, rng) -> None:
    height = STREET[1]
    ground = {
        "park": (134, 134, 112),
        "hedge": (146, 142, 132),
        "road": (126, 126, 126),
        "plaza": (150, 146, 140),
        "shop": (146, 142, 136),
        "brick": (140, 136, 132),
        "glass": (146, 146, 146),
        "arcade": (148, 142, 134),
    }[scene]
    draw.rectangle((0, WALL_FOOT, width, height), fill=_mixed(ground, rng))
    darker = tuple(int(value * 0.86) for value in ground)
    if scene == "park":
        draw.polygon((0, 500, width, 455, width, 620, 0, 690), fill=_mixed((156, 150, 138), rng))
        for _ in range(400):
            x, y = rng.uniform(0, width), rng.uniform(WALL_FOOT, height)
            draw.line((x, y, x + rng.uniform(-3, 3), y - rng.uniform(3, 9)), fill=_mixed((126, 128, 100), rng, 24))
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


def _draw_things(draw, width, rng) -> None:
    for _ in range(int(rng.integers(1, 3))):  # trunks, bins, bollards, signs, parked bicycles
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
            draw.line(
                (x - 42, foot - 34, x - 10, foot - 90, x + 34, foot - 84, x + 42, foot - 34),
                fill=_mixed((150, 60, 50), rng, 60),
                width=5,
            )
