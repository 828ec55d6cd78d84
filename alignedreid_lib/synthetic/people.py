"""The drawn pedestrians' build, skin, hair, garments, shoes and what they carry.

Colours come from short lists and repeat from person to person: only the combination identifies a person.
Shown in notebooks/01_datasets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from alignedreid_lib.synthetic.painting import Array, Colour, Fabric

BLACK, WHITE, GREY = (0.10, 0.10, 0.11), (0.88, 0.88, 0.86), (0.48, 0.48, 0.50)
NAVY, RED, BLUE, GREEN = (0.13, 0.17, 0.32), (0.68, 0.13, 0.14), (0.20, 0.36, 0.66), (0.20, 0.43, 0.27)
YELLOW, PINK, BEIGE, JEANS = (0.86, 0.72, 0.26), (0.84, 0.52, 0.60), (0.70, 0.60, 0.46), (0.28, 0.37, 0.53)
TOPS = (BLACK, WHITE, GREY, NAVY, RED, BLUE, GREEN, YELLOW, PINK, BEIGE)
TOP_WEIGHTS = (0.18, 0.20, 0.13, 0.10, 0.09, 0.08, 0.06, 0.05, 0.06, 0.05)
BOTTOMS = (BLACK, NAVY, JEANS, GREY, BEIGE)
SHOES = (BLACK, WHITE, GREY, RED, BEIGE)
BAGS = (BLACK, NAVY, RED, GREY, BEIGE, GREEN)
SKINS = ((0.93, 0.75, 0.64), (0.86, 0.66, 0.52), (0.74, 0.54, 0.40), (0.55, 0.38, 0.28), (0.38, 0.26, 0.20))
HAIRS = (
    (0.07, 0.06, 0.06),
    (0.20, 0.13, 0.09),
    (0.38, 0.25, 0.15),
    (0.72, 0.56, 0.34),
    (0.60, 0.58, 0.56),
    (0.45, 0.20, 0.10),
)
PATTERNS = ("plain", "stripes", "pinstripes", "checks", "dots", "print", "number", "band", "yoke", "open", "camouflage")
PATTERN_WEIGHTS = (0.22, 0.13, 0.06, 0.09, 0.06, 0.11, 0.06, 0.06, 0.08, 0.09, 0.04)


@dataclass(frozen=True)
class Person:
    """Everything that stays the same from camera to camera."""

    girth: float  # 1 is slim
    shoulders: float  # half-width
    hips: float  # half-width
    bust: float
    skin: Colour
    hair: Colour
    hair_style: str  # short | long | bun | bald | cap | beanie | tail
    headwear: Colour
    glasses: bool
    beard: bool
    top: Fabric
    sleeves: Fabric
    sleeve: float  # 0 none, 0.5 to the elbow, 1 to the wrist
    hem: float  # z where the top ends
    bottom: Fabric
    bottom_kind: str  # trousers | shorts | skirt | dress
    shoes: Colour
    boots: bool
    bag: str  # none | backpack | shoulder | hand | case
    bag_colour: Colour
    bag_side: int  # -1 or 1

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Person:
        """A new random person."""
        woman = rng.random() < 0.5

        def pick(values, weights=None):
            return values[rng.choice(len(values), p=weights)]

        colour = pick(TOPS, TOP_WEIGHTS)
        second = pick([other for other in TOPS if other != colour])
        pattern = pick(PATTERNS, PATTERN_WEIGHTS)
        pitch = float(rng.choice([0.035, 0.05, 0.075]))
        top = Fabric(colour, second, pattern, pitch)
        plain = Fabric(colour)
        own = pattern in ("stripes", "pinstripes", "checks", "dots", "camouflage")
        sleeves = Fabric(colour, second, pattern, pitch) if own else plain
        if rng.random() < 0.15:
            sleeves = Fabric(second)
        kind = pick(("trousers", "shorts", "skirt", "dress"), (0.5, 0.2, 0.16, 0.14) if woman else (0.7, 0.3, 0, 0))
        bottom = Fabric(pick([other for other in BOTTOMS if other != colour]))
        if kind == "dress":
            bottom = Fabric(colour, second, pattern if own else "plain", pitch)
        elif rng.random() < 0.15:
            bottom = Fabric(bottom.colour, WHITE, "sides")
        styles = ("short", "long", "bun", "bald", "cap", "beanie", "tail")
        weights = (0.12, 0.46, 0.12, 0, 0.06, 0.06, 0.18) if woman else (0.64, 0.04, 0, 0.1, 0.14, 0.08, 0)
        return cls(
            girth=float(rng.uniform(0.88, 1.32)),
            shoulders=float(rng.uniform(0.098, 0.112) if woman else rng.uniform(0.112, 0.128)),
            hips=float(rng.uniform(0.086, 0.1) if woman else rng.uniform(0.078, 0.09)),
            bust=0.018 if woman else 0.0,
            skin=pick(SKINS, (0.26, 0.3, 0.2, 0.14, 0.1)),
            hair=pick(HAIRS, (0.34, 0.26, 0.18, 0.12, 0.06, 0.04)),
            hair_style=pick(styles, weights),
            headwear=pick(TOPS, TOP_WEIGHTS),
            glasses=bool(rng.random() < 0.2),
            beard=bool(not woman and rng.random() < 0.2),
            top=top,
            sleeves=sleeves,
            sleeve=float(rng.choice([0, 0.45, 1], p=(0.1, 0.45, 0.45))),
            hem=float(rng.choice([0.5, 0.46, 0.38], p=(0.45, 0.4, 0.15))),
            bottom=bottom,
            bottom_kind=kind,
            shoes=pick(SHOES),
            boots=bool(rng.random() < 0.15),
            bag=pick(("none", "backpack", "shoulder", "hand", "case"), (0.3, 0.34, 0.16, 0.14, 0.06)),
            bag_colour=pick(BAGS),
            bag_side=int(rng.choice([-1, 1])),
        )


@dataclass(frozen=True)
class Face(Fabric):
    """Skin (`colour`) with eyes, mouth, glasses and a beard (`second`) at the front."""

    glasses: bool = False
    beard: bool = False

    def colours(self, theta: Array, v: Array) -> Array:
        side = np.abs(theta)
        dark = 0.75 * ((np.abs(side - 0.42) < 0.17) & (np.abs(v - 0.06) < 0.09))
        dark = np.maximum(dark, 0.35 * ((side < 0.35) & (np.abs(v + 0.5) < 0.07)))
        if self.glasses:
            dark = np.maximum(dark, 0.8 * ((side < 0.95) & (np.abs(v - 0.06) < 0.08)))
        if self.beard:
            dark = np.maximum(dark, 0.7 * ((v < -0.3) & (side < 1.4)))
        skin, shade = np.asarray(self.colour, np.float32), 0.6 * np.asarray(self.second, np.float32)
        return skin + dark[..., None].astype(np.float32) * (shade - skin)


@dataclass(frozen=True)
class Hair(Fabric):
    """Hair that leaves the face free, or a hat that covers the crown alone."""

    hat: bool = False

    def cover(self, theta: Array, v: Array) -> Array:
        line = [0.25] * 5 if self.hat else [0.34, 0.30, -0.05, -0.35, -0.8]
        edge = np.interp(np.abs(theta), [0, 0.75, 1.1, 1.6, np.pi], line).astype(np.float32)
        return np.clip((v - edge) * 6 + 0.5, 0, 1)


@dataclass(frozen=True)
class Strap(Fabric):
    """The straps of a backpack over both shoulders (side 0), or one from a shoulder to the other hip."""

    side: int = 0

    def cover(self, theta: Array, v: Array) -> Array:
        if self.side == 0:
            worn = (np.abs(np.abs(theta) - 0.62 - 3 * np.maximum(0.68 - v, 0)) < 0.14) & (v > 0.6)
        else:
            front = np.where(np.abs(theta) < np.pi / 2, theta, np.sign(theta) * np.pi - theta)
            worn = (np.abs(front - self.side * (0.70 - v) * 5.5) < 0.13) & (v > 0.5)
        return worn.astype(np.float32)
