"""Pedestrians: who somebody is (`Person`), how a camera sees them (`View`), and the picture of both (`draw`).

A person is a skeleton of joints in three dimensions, turned, walked and then painted from back to front. x runs to
the right of a person who faces the camera, y forward, z up; lengths are in heights of the person.

Shown in notebooks/01_datasets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from alignedreid_lib.painting import Array, Box, Canvas, Colour, Fabric
from alignedreid_lib.scenery import Camera

TRUE_BOX = Box(-0.27, 1.04, 0.54, 1.08)  # a perfect detection

BLACK, WHITE, GREY = (0.10, 0.10, 0.11), (0.88, 0.88, 0.86), (0.48, 0.48, 0.50)
NAVY, RED, BLUE, GREEN = (0.13, 0.17, 0.32), (0.68, 0.13, 0.14), (0.20, 0.36, 0.66), (0.20, 0.43, 0.27)
YELLOW, PINK, BEIGE, JEANS = (0.86, 0.72, 0.26), (0.84, 0.52, 0.60), (0.70, 0.60, 0.46), (0.28, 0.37, 0.53)
TOPS = (BLACK, WHITE, GREY, NAVY, RED, BLUE, GREEN, YELLOW, PINK, BEIGE)
TOP_WEIGHTS = (0.18, 0.20, 0.13, 0.10, 0.09, 0.08, 0.06, 0.05, 0.06, 0.05)
BOTTOMS = (BLACK, NAVY, JEANS, GREY, BEIGE)
SHOES = (BLACK, WHITE, GREY, RED, BEIGE)
BAGS = (BLACK, NAVY, RED, GREY, BEIGE, GREEN)
SKINS = ((0.93, 0.75, 0.64), (0.86, 0.66, 0.52), (0.74, 0.54, 0.40), (0.55, 0.38, 0.28), (0.38, 0.26, 0.20))
HAIRS = ((0.07, 0.06, 0.06), (0.20, 0.13, 0.09), (0.38, 0.25, 0.15), (0.72, 0.56, 0.34), (0.60, 0.58, 0.56), (0.45, 0.20, 0.10))
PATTERNS = ("plain", "stripes", "pinstripes", "checks", "dots", "print", "number", "band", "yoke", "open", "camouflage")
PATTERN_WEIGHTS = (0.30, 0.11, 0.06, 0.08, 0.05, 0.10, 0.06, 0.05, 0.07, 0.09, 0.03)


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
        """Somebody new."""
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
        bottom = Fabric(pick(BOTTOMS))
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
            skin=pick(SKINS, (0.26, 0.3, 0.2, 0.14, 0.1)), hair=pick(HAIRS, (0.34, 0.26, 0.18, 0.12, 0.06, 0.04)),
            hair_style=pick(styles, weights), headwear=pick(TOPS, TOP_WEIGHTS),
            glasses=bool(rng.random() < 0.2), beard=bool(not woman and rng.random() < 0.2),
            top=top, sleeves=sleeves, sleeve=float(rng.choice([0, 0.45, 1], p=(0.1, 0.45, 0.45))),
            hem=float(rng.choice([0.5, 0.46, 0.38], p=(0.45, 0.4, 0.15))), bottom=bottom, bottom_kind=kind,
            shoes=pick(SHOES), boots=bool(rng.random() < 0.15),
            bag=pick(("none", "backpack", "shoulder", "hand", "case"), (0.4, 0.28, 0.14, 0.14, 0.04)),
            bag_colour=pick(BAGS), bag_side=int(rng.choice([-1, 1])),
        )


@dataclass(frozen=True)
class View:
    """Everything that changes from picture to picture of one person."""

    camera: Camera
    yaw: float  # 0 faces the camera, pi/2 walks to the right, pi shows the back
    phase: float  # of the gait, radians
    stride: float  # swing of the legs, radians
    elbow: float  # bend of the arms, radians
    place: tuple[float, float]  # of the feet, street pixels
    scale: float  # the person's height over the street's unit
    gain: float  # of this picture's light
    seed: int  # of the noise, and of what stands in the way

    @classmethod
    def sample(cls, rng: np.random.Generator, camera: Camera) -> View:
        """A moment in front of a camera."""
        walking = rng.random() < 0.85
        return cls(
            camera=camera,
            yaw=float((camera.yaw + rng.normal(0, 0.6) + np.pi * (rng.random() < 0.3)) % (2 * np.pi)),
            phase=float(rng.uniform(0, 2 * np.pi)),
            stride=float(rng.uniform(0.3, 0.5) if walking else 0.04),
            elbow=float(rng.uniform(0.15, 0.7)),
            place=(float(rng.uniform(260, 1150)), float(rng.uniform(480, 570))),
            scale=float(rng.uniform(0.85, 1.12)),
            gain=float(np.exp(rng.normal(0, 0.15))),
            seed=int(rng.integers(2**31)),
        )


def draw(person: Person | None, view: View, box: Box = TRUE_BOX) -> np.ndarray:
    """The picture of a person (or of nobody) in a view, cut out by a box: uint8 [128, 64, 3]."""
    rng = np.random.default_rng(view.seed)
    canvas = Canvas(view.camera.background(box, view.place, view.scale).copy(), box, view.camera.light)
    if person is not None:
        canvas.shadow((0.06 * -view.camera.light, 0.005), (0.24, 0.045), 0.5)
        for _, paint in sorted(_body(canvas, person, view), key=lambda part: part[0]):
            paint()
    return view.camera.expose(canvas.pixels, view.gain, rng)


def _body(canvas: Canvas, person: Person, view: View) -> list:
    """The parts of a body as (depth, painter), to be painted from the least depth to the greatest."""
    cos, sin = np.cos(view.yaw), np.sin(view.yaw)
    tilt, turn = view.camera.pitch, view.yaw

    def flat(x, y, z):  # -> where it is seen (x, z), and its depth towards the viewer
        depth = y * cos - x * sin
        return (x * cos + y * sin, z * np.cos(tilt) - depth * np.sin(tilt) + 0.01), depth

    parts: list = []

    def limb(a, b, radius_a, radius_b, fabric, lift=0.0):
        (p, depth_a), (q, depth_b) = flat(*a), flat(*b)
        parts.append(((depth_a + depth_b) / 2 + lift, lambda: canvas.tube(p, q, radius_a, radius_b, fabric, turn)))

    def lump(centre, radii, fabric, power=2.0, lift=0.0):
        p, depth = flat(*centre)
        wide = np.hypot(radii[0] * cos, radii[1] * sin)
        parts.append((depth + lift, lambda: canvas.blob(p, (wide, radii[2]), fabric, turn, power)))

    def trunk(levels, offsets, halves, depths, fabric, lift=0.0):
        halves, depths = np.asarray(halves), np.asarray(depths)
        seen = [flat(0, offset, z)[0] for offset, z in zip(offsets, levels, strict=True)]
        wide = np.hypot(halves * cos, depths * sin)
        parts.append((lift, lambda: canvas.lathe([z for _, z in seen], [x for x, _ in seen], wide, fabric, turn)))

    girth = person.girth
    skin, shoe = Fabric(person.skin), Fabric(person.shoes)
    # legs: hip, knee and ankle swing in the walking plane
    stance = 0.045 if view.stride > 0.1 else 0.055
    ankles = []
    for side, phase in ((-1, view.phase), (1, view.phase + np.pi)):
        swing = view.stride * np.sin(phase)
        bend = view.stride * (0.25 + 1.1 * max(np.cos(phase), 0))
        hip = np.array([side * stance, 0, 0.5])
        knee = hip + 0.235 * np.array([0, np.sin(swing), -np.cos(swing)])
        ankle = knee + 0.225 * np.array([0, np.sin(swing - bend), -np.cos(swing - bend)])
        ankles.append((side, hip, knee, ankle, swing - bend))
    drop = min(ankle[2] for *_, ankle, _ in ankles) - 0.035
    for side, hip, knee, ankle, lean in ankles:
        for joint in (hip, knee, ankle):
            joint[2] -= drop
        toe = ankle + np.array([side * 0.012, 0.085 * np.cos(lean) , 0.085 * min(np.sin(lean), 0.1) - 0.015])
        heel = ankle + np.array([0, -0.02, -0.012])
        limb(heel, toe, 0.022, 0.019, shoe, -0.3)
        covered = person.bottom_kind == "trousers"
        thigh = person.bottom if person.bottom_kind in ("trousers", "shorts") else skin
        limb(knee, ankle, 0.033 * girth + 0.006 * covered, 0.019 * girth + 0.012 * covered, person.bottom if covered else skin, -0.3)
        if person.boots:
            limb((knee + ankle) / 2, ankle, 0.033 * girth, 0.026, shoe, -0.29)
        limb(hip, knee, 0.056 * girth, 0.037 * girth + 0.008 * (thigh is not skin), thigh, -0.28)
    down = drop
    if person.bottom_kind in ("skirt", "dress"):
        low = 0.3 if person.bottom_kind == "dress" else 0.34
        flare = person.hips + 0.03
        trunk([low - down, 0.5 - down, 0.6 - down], [0, 0, 0], [flare, person.hips * girth, 0.075 * girth],
              [flare * 0.9, 0.075 * girth, 0.06 * girth], person.bottom, -0.1)
    hem = 0.55 if person.bottom_kind in ("skirt", "dress") else person.hem
    hip_fabric = person.bottom
    trunk([0.45 - down, 0.5 - down, 0.58 - down], [0, 0, 0], [person.hips * girth * 0.9, person.hips * girth, 0.075 * girth],
          [0.06 * girth, 0.07 * girth, 0.06 * girth], hip_fabric, -0.15)
    belly = 0.02 * (girth - 1)
    s = person.shoulders
    levels = np.array([hem, 0.5, 0.6, 0.7, 0.76, 0.805, 0.83, 0.85]) - down
    if hem >= 0.5:
        levels[1] = levels[0] + 0.005
    waist = (0.072 if person.bust else 0.08) * girth
    trunk(levels, [0, 0, belly, 0.5 * person.bust, 0.3 * person.bust, 0, -0.005, 0],
          [person.hips * girth * 1.05, person.hips * girth * 1.03, waist, s * 0.86, s * 0.93, s, s * 0.75, 0.035],
          [0.07 * girth, 0.068 * girth, 0.06 * girth + belly, 0.064 * girth + person.bust, 0.06 * girth + person.bust / 2, 0.05 * girth, 0.04, 0.03],
          person.top, 0.0)
    # arms
    for side, phase in ((-1, view.phase + np.pi), (1, view.phase)):
        swing = 0.9 * view.stride * np.sin(phase)
        shoulder = np.array([side * s * 0.97, 0, 0.80 - down])
        elbow = shoulder + 0.165 * np.array([side * 0.14, np.sin(swing), -np.cos(swing)])
        wrist = elbow + 0.14 * np.array([side * -0.02, np.sin(swing + view.elbow), -np.cos(swing + view.elbow)])
        hand = wrist + 0.03 * np.array([0, np.sin(swing + view.elbow), -np.cos(swing + view.elbow)])
        limb(wrist, hand, 0.017, 0.015, skin, 0.02)
        limb(elbow, wrist, 0.026 * girth ** 0.5 , 0.018, person.sleeves if person.sleeve == 1 else skin, 0.02)
        limb(shoulder, elbow, 0.036 * girth ** 0.5, 0.028 * girth ** 0.5, person.sleeves if person.sleeve > 0 else skin, 0.021)
        if side == person.bag_side and person.bag == "hand":
            lump(hand - [0, 0, 0.075], (0.06, 0.03, 0.06), Fabric(person.bag_colour), 5, 0.02)
        if side == person.bag_side and person.bag == "case":
            lump((hand[0] + 0.03 * side, hand[1], 0.11), (0.07, 0.04, 0.11), Fabric(person.bag_colour), 6, 0.02)
    if person.bag == "backpack":
        lump((0, -0.095, 0.70 - down), (0.085, 0.05, 0.105), Fabric(person.bag_colour), 4)
    if person.bag == "shoulder":
        lump((person.bag_side * (person.hips + 0.03), -0.01, 0.52 - down), (0.05, 0.06, 0.05), Fabric(person.bag_colour), 5, 0.03)
    # head
    limb((0, 0, 0.88 - down), (0, 0, 0.835 - down), 0.028, 0.032, skin, 0.001)
    head = (0, 0.012, 0.928 - down)
    lump(head, (0.046, 0.056, 0.066), Face(person), 2.0, 0.01)
    if person.hair_style == "long":
        lump((0, -0.03, 0.885 - down), (0.055, 0.04, 0.085), Fabric(person.hair), 2.6, -0.005)
    if person.hair_style == "tail":
        limb((0, -0.06, 0.95 - down), (0, -0.075, 0.85 - down), 0.022, 0.012, Fabric(person.hair), 0.0)
    if person.hair_style == "bun":
        lump((0, -0.035, 0.99 - down), (0.026, 0.026, 0.024), Fabric(person.hair), 2)
    if person.hair_style != "bald":
        cap = person.hair_style in ("cap", "beanie")
        lump((0, 0.006, 0.934 - down), (0.051, 0.062, 0.072), Hair(person.headwear if cap else person.hair, cap), 2.0, 0.012)
    if person.hair_style == "cap":
        lump((0, 0.075, 0.955 - down), (0.04, 0.045, 0.011), Fabric(person.headwear), 2.0, 0.01)
    return parts


class Face(Fabric):
    """Skin with eyes, mouth, beard and glasses at the front."""

    def __init__(self, person: Person) -> None:
        super().__init__(person.skin, person.hair, "face")
        object.__setattr__(self, "person", person)

    def colours(self, theta: Array, v: Array) -> Array:
        person = self.person
        theta = (theta + np.pi) % (2 * np.pi) - np.pi
        side = np.abs(theta)
        dark = 0.75 * ((np.abs(side - 0.42) < 0.17) & (np.abs(v - 0.06) < 0.09))
        dark = np.maximum(dark, 0.35 * ((side < 0.35) & (np.abs(v + 0.5) < 0.07)))
        if person.glasses:
            dark = np.maximum(dark, 0.8 * ((side < 0.95) & (np.abs(v - 0.06) < 0.13)))
        if person.beard:
            dark = np.maximum(dark, 0.7 * ((v < -0.3) & (side < 1.4)))
        skin = np.asarray(person.skin, np.float32)
        return skin + dark[..., None].astype(np.float32) * (np.asarray(person.hair, np.float32) * 0.6 - skin)


class Hair(Fabric):
    """A wig that leaves the face free, or a cap."""

    def __init__(self, colour: Colour, cap: bool) -> None:
        super().__init__(colour)
        object.__setattr__(self, "cap", cap)

    def cover(self, theta: Array, v: Array) -> Array:
        side = np.abs((theta + np.pi) % (2 * np.pi) - np.pi)
        line = np.interp(side, [0, 0.75, 1.1, 1.6, np.pi], [0.25] * 5 if self.cap else [0.42, 0.38, 0.0, -0.3, -0.75])
        return np.clip((v - line) * 6 + 0.5, 0, 1).astype(np.float32)
