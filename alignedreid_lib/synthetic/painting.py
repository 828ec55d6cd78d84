"""What the drawn pedestrians are painted with: fabrics, and a canvas for soft-edged, rounded, shaded bodies.

Lengths are in heights of the person; x runs right from the feet, z up from the ground. Shown in notebooks/01_datasets.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Colour = tuple[float, float, float]
PATTERNS_KNOWN = (
    "plain",
    "stripes",
    "pinstripes",
    "checks",
    "dots",
    "print",
    "number",
    "band",
    "yoke",
    "open",
    "sides",
    "camouflage",
)


class Box(NamedTuple):
    """A bounding box: its left and top edge and its size, in heights of the person."""

    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True)
class Fabric:
    """A surface: one colour, or two in a pattern wound around the body.

    A pattern depends on the angle around the body (theta in [-pi, pi], 0 is the front) and on v, a length along it, so
    that a print on the chest is seen only from the front.
    """

    colour: Colour
    second: Colour = (0.0, 0.0, 0.0)
    pattern: str = "plain"
    pitch: float = 0.05  # length of one repeat
    middle: float = 0.72  # the v of prints, bands and yokes

    def colours(self, theta: Array, v: Array) -> Array:
        """The colours [h, w, 3] at angles theta and lengths v, both [h, w]."""
        first = np.asarray(self.colour, np.float32)
        if self.pattern == "plain":
            return np.broadcast_to(first, (*v.shape, 3))
        mixed = np.asarray(self.mix(theta, v), np.float32)
        return first + mixed[..., None] * (np.asarray(self.second, np.float32) - first)

    def cover(self, theta: Array, v: Array) -> Array:
        """How opaque the surface is, [h, w] in [0, 1]."""
        return np.ones_like(v)

    def mix(self, theta: Array, v: Array) -> np.ndarray:
        """How much of the second colour shows, [h, w] bool or in [0, 1]."""
        repeats = max(round(0.5 / self.pitch), 3)
        turns = theta * (repeats / (2 * np.pi))
        up, side, low = v / self.pitch, np.abs(theta), v - self.middle
        match self.pattern:
            case "stripes":
                return up % 1 < 0.5
            case "pinstripes":
                return turns % 1 < 0.35
            case "checks":
                return 0.5 * (up % 1 < 0.5) + 0.5 * (turns % 1 < 0.5)
            case "dots":
                return ((up % 1) - 0.5) ** 2 + ((turns + 0.5 * (up // 1)) % 1 - 0.5) ** 2 < 0.09
            case "print":
                return (side / 0.62) ** 4 + (low / 0.05) ** 4 < 1
            case "number":
                return (np.pi - side < 0.55) & (np.abs(low) < 0.06) | (side < 0.2) & (np.abs(low - 0.02) < 0.02)
            case "band":
                return np.abs(low) < 0.028
            case "yoke":
                return low > 0.0
            case "open":  # a jacket worn open
                return side < 0.34 + 0.5 * np.clip(low, -0.1, 0.1)
            case "sides":  # a stripe down the outer seam
                return np.abs(side - np.pi / 2) < 0.17
            case "camouflage":
                return np.sin(9 * theta + 50 * v) * np.sin(70 * v - 4 * theta) + np.sin(5 * theta - 95 * v) * 0.6 > 0.1
        raise ValueError(f"no pattern is called {self.pattern!r}")


def _angle(u: Array, turn: float) -> Array:
    """The angle around a body turned by `turn`, in [-pi, pi], of what is seen at u, -1 left to 1 right."""
    return np.asarray((np.arcsin(u) - turn + math.pi) % (2 * math.pi) - math.pi, np.float32)


class Canvas:
    """The pixels inside a box, painted from back to front with soft-edged, shaded bodies.

    Args:
        background: [h, w, 3] float32 colours in [0, 1]; painted over in place.
        box: what part of the world the canvas shows.
        light: where the light comes from, -1 (left) to 1 (right).
        folds: [h, w] how much brighter or darker cloth is for its folds.
    """

    def __init__(self, background: Array, box: Box, light: float, folds: Array) -> None:
        self.pixels = background
        self.folds = folds
        height, width = background.shape[:2]
        columns, rows = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)
        self.x = (float(box.left) + (columns + 0.5) * (float(box.width) / width))[None, :]
        self.z = (float(box.top) - (rows + 0.5) * (float(box.height) / height))[:, None]
        self.sharpness = height / float(box.height)  # canvas pixels a unit
        self.across = float(box.width) / width  # units a canvas pixel, sideways
        self.light = float(light)  # a Python float leaves float32 arrays what they are

    def window(self, left: float, right: float, bottom: float, top: float) -> tuple[slice, slice]:
        """The rows and columns which show the given rectangle."""
        margin = 1.5 / self.sharpness
        x, z, (height, width) = float(self.x[0, 0]), float(self.z[0, 0]), self.folds.shape
        columns = [min(max(int((edge - x) / self.across + 0.5), 0), width) for edge in (left - margin, right + margin)]
        rows = [min(max(int((z - edge) * self.sharpness + 0.5), 0), height) for edge in (top + margin, bottom - margin)]
        return slice(*rows), slice(*columns)

    def blend(self, window: tuple[slice, slice], cover: np.ndarray, colour: np.ndarray | Colour) -> None:
        """Paint a colour ([h, w, 3] or one for all) over the window, with opacity `cover` [h, w]."""
        target = self.pixels[window]
        target += cover[..., None] * (np.asarray(colour, np.float32) - target)

    def shade(self, u: Array) -> Array:
        """How bright a round body is at u, -1 at its left edge and 1 at its right one."""
        return 0.60 + 0.40 * np.sqrt(np.maximum(1 - u * u, 0)) + (0.28 * self.light) * u

    def tube(
        self, a, b, radius_a: float, radius_b: float, fabric: Fabric, turn: float = 0.0, bright: float = 1.0
    ) -> None:
        """A limb from point a down to point b (x, z), round at its ends; `turn` is the way the body faces."""
        reach = max(radius_a, radius_b)
        window = self.window(
            min(a[0], b[0]) - reach, max(a[0], b[0]) + reach, min(a[1], b[1]) - reach, max(a[1], b[1]) + reach
        )
        x, z = self.x[:, window[1]] - a[0], self.z[window[0]] - a[1]
        if not x.size or not z.size:
            return
        dx, dz = b[0] - a[0], b[1] - a[1]
        length = max(math.hypot(dx, dz), 1e-3)
        along = (x * dx + z * dz) / length
        across = (x * -dz + z * dx) / length  # left of a downward limb is -1
        t = np.clip(along / length, 0, 1)
        radius = radius_a + (radius_b - radius_a) * t
        beyond = along - t * length
        distance = np.sqrt(across * across + beyond * beyond)
        cover = np.clip((radius - distance) * self.sharpness + 0.5, 0, 1)
        u = np.clip(across / radius, -1, 1)
        light = self.shade(u) * (bright + self.folds[window])
        self.blend(window, cover, fabric.colours(_angle(u, turn), along) * light[..., None])

    def lathe(self, levels, centres, widths, fabric: Fabric, turn: float = 0.0) -> None:
        """An upright body: at each level (ascending z) its centre (x) and half-width."""
        levels, centres, widths = (np.asarray(values, np.float32) for values in (levels, centres, widths))
        window = self.window(
            float((centres - widths).min()), float((centres + widths).max()), float(levels[0]), float(levels[-1])
        )
        x, z = self.x[:, window[1]], self.z[window[0]]
        if not x.size or not z.size:
            return
        width = np.maximum(np.interp(z, levels, widths).astype(np.float32), 1e-3)
        offset = x - np.interp(z, levels, centres).astype(np.float32)
        cover = np.clip((width - np.abs(offset)) * self.sharpness + 0.5, 0, 1)
        ends = np.clip(np.minimum(z - levels[0], levels[-1] - z) * self.sharpness + 0.5, 0, 1)
        u = np.clip(offset / width, -1, 1)
        theta, v = _angle(u, turn), np.broadcast_to(z, u.shape)
        light = self.shade(u) * (1 + self.folds[window])
        self.blend(window, cover * ends * fabric.cover(theta, v), fabric.colours(theta, v) * light[..., None])

    def blob(self, centre, radii, fabric: Fabric, turn: float = 0.0, power: float = 2.0) -> None:
        """An ellipsoid (power 2) or rounded box (power 4 and more); its pattern's v runs -1 to 1, downwards to up."""
        window = self.window(centre[0] - radii[0], centre[0] + radii[0], centre[1] - radii[1], centre[1] + radii[1])
        x, z = (self.x[:, window[1]] - centre[0]) / radii[0], (self.z[window[0]] - centre[1]) / radii[1]
        if not x.size or not z.size:
            return
        reach = (np.abs(x) ** power + np.abs(z) ** power) ** (1 / power)
        cover = np.clip((1 - reach) * (min(radii) * self.sharpness) + 0.5, 0, 1)
        u = np.clip(x / np.maximum((1 - np.abs(z) ** power), 0.05) ** (1 / power), -1, 1)
        v = np.broadcast_to(z, u.shape)
        theta = _angle(u, turn)
        light = self.shade(0.8 * u) * (1 + 0.12 * v)
        self.blend(window, cover * fabric.cover(theta, v), fabric.colours(theta, v) * light[..., None])

    def shadow(self, centre, radii, strength: float) -> None:
        """A soft dark ellipse on the ground."""
        window = self.window(centre[0] - radii[0], centre[0] + radii[0], centre[1] - radii[1], centre[1] + radii[1])
        x, z = (self.x[:, window[1]] - centre[0]) / radii[0], (self.z[window[0]] - centre[1]) / radii[1]
        self.blend(window, strength * np.clip(1 - x * x - z * z, 0, 1), (0.0, 0.0, 0.0))
