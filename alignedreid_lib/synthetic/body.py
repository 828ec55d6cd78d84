"""A person's body: a skeleton of joints in three dimensions, turned, walked, and painted from back to front.

For a person facing the camera, x runs right, y forward and z up, in body heights. Shown in notebooks/01_datasets.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from alignedreid_lib.synthetic.painting import Canvas, Fabric
from alignedreid_lib.synthetic.people import BLACK, Face, Hair, Person, Strap
from alignedreid_lib.synthetic.views import View


class Body:
    """A person in a view, taken apart into (depth, painter), to be painted from the least depth up."""

    def __init__(self, canvas: Canvas, person: Person, view: View, at: tuple[float, float]) -> None:
        self.canvas, self.person, self.view, self.at = canvas, person, view, at
        self.cos, self.sin = math.cos(view.yaw), math.sin(view.yaw)
        self.high, self.low = math.cos(view.camera.pitch), math.sin(view.camera.pitch)
        self.parts: list[tuple[float, Callable[[], None]]] = []
        self.skin = Fabric(person.skin)
        self.bag = Fabric(person.bag_colour)
        self.drop = 0.0  # how much a stride lowers the body
        self.hands: dict[int, np.ndarray] = {}

    def flat(self, point) -> tuple[tuple[float, float], float]:
        """Where a point (x, y, z) of the body is seen, and its depth towards the viewer."""
        x, y, z = map(float, point)  # a Python float leaves float32 arrays what they are
        depth = y * self.cos - x * self.sin
        up = z * self.high - (depth + self.at[1]) * self.low + 0.015
        return (x * self.cos + y * self.sin + self.at[0], up), depth

    def limb(self, a, b, radius_a: float, radius_b: float, fabric: Fabric, lift: float = 0.0) -> None:
        (p, depth_a), (q, depth_b) = self.flat(a), self.flat(b)
        depth, turn = (depth_a + depth_b) / 2, self.view.yaw
        bright = 1 + min(1.6 * depth, 0.0)
        self.parts.append((depth + lift, lambda: self.canvas.tube(p, q, radius_a, radius_b, fabric, turn, bright)))

    def lump(self, centre, radii, fabric: Fabric, power: float = 2.0, lift: float = 0.0) -> None:
        p, depth = self.flat(centre)
        wide = math.hypot(radii[0] * self.cos, radii[1] * self.sin)
        self.parts.append((depth + lift, lambda: self.canvas.blob(p, (wide, radii[2]), fabric, self.view.yaw, power)))

    def lathe(self, profile, fabric: Fabric, lift: float) -> None:
        """Rows of a profile: z, offset forward, half-width, half-depth; z ascending."""
        levels, offsets, halves, depths = np.transpose(profile)
        seen = [self.flat((0, offset, z - self.drop))[0] for offset, z in zip(offsets, levels, strict=True)]
        wide = np.hypot(halves * self.cos, depths * self.sin)
        self.parts.append(
            (lift, lambda: self.canvas.lathe([z for _, z in seen], [x for x, _ in seen], wide, fabric, self.view.yaw))
        )

    def legs(self) -> None:
        """Hips, knees and ankles swing in the walking plane; the lower foot is on the ground."""
        person, view, girth = self.person, self.view, self.person.girth**0.7
        joints = []
        for side, phase in ((-1, view.phase), (1, view.phase + np.pi)):
            swing = view.stride * np.sin(phase)
            bent = swing - view.stride * (0.2 + 1.2 * max(np.cos(phase), 0))
            hip = np.array([side * (0.042 if view.stride > 0.1 else 0.052), 0, 0.5])
            knee = hip + 0.235 * np.array([side * 0.02, np.sin(swing), -np.cos(swing)])
            ankle = knee + 0.225 * np.array([0, np.sin(bent), -np.cos(bent)])
            joints.append((side, hip, knee, ankle, bent))
        self.drop = min(ankle[2] for _, _, _, ankle, _ in joints) - 0.035
        shoe = Fabric(person.shoes)
        trousers, shorts = person.bottom_kind == "trousers", person.bottom_kind == "shorts"
        shin, thigh = person.bottom if trousers else self.skin, person.bottom if trousers or shorts else self.skin
        for side, hip, knee, ankle, bent in joints:
            for joint in (hip, knee, ankle):
                joint[2] -= self.drop
            flex = min(bent, 0.0)
            heel = ankle + np.array([0, -0.018 * np.cos(flex), -0.012])
            toe = ankle + np.array([side * 0.014, 0.08 * np.cos(flex), 0.08 * np.sin(flex) - 0.016])
            self.limb(heel, toe, 0.021, 0.017, shoe, -0.31)
            self.limb(knee, ankle, 0.034 * girth + 0.004 * trousers, 0.019 + 0.011 * trousers, shin, -0.3)
            if person.boots:
                self.limb((knee + ankle) / 2, ankle, 0.036 * girth, 0.026, shoe, -0.29)
            if shorts:
                self.limb(hip, knee * 0.9 + hip * 0.1, 0.056 * girth, 0.047 * girth, thigh, -0.27)
                self.limb(hip, knee, 0.05 * girth, 0.034 * girth, self.skin, -0.28)
            else:
                self.limb(hip, knee, 0.055 * girth, 0.036 * girth + 0.004 * trousers, thigh, -0.28)

    def trunk(self) -> None:
        """Seat or skirt, then the upper body with its garment."""
        person, girth, s = self.person, self.person.girth, self.person.shoulders
        hips, deep = person.hips * girth**0.7, 0.066 * girth
        skirt = person.bottom_kind in ("skirt", "dress")
        if skirt:
            low = 0.29 if person.bottom_kind == "dress" else 0.35
            self.lathe(
                [(low, 0, hips + 0.03, deep + 0.03), (0.5, 0, hips, deep + 0.005), (0.6, 0, 0.07 * girth, deep)],
                person.bottom,
                -0.14,
            )
        else:
            self.lathe(
                [
                    (0.455, -0.004, hips * 0.9, deep),
                    (0.5, -0.008, hips * 1.02, deep + 0.006),
                    (0.6, 0, 0.07 * girth, deep),
                ],
                person.bottom,
                -0.15,
            )
        hem = 0.56 if skirt else person.hem
        belly, bust = 0.05 * max(girth - 1, 0), person.bust
        waist = (0.068 if bust else 0.076) * girth + 0.006 * (person.hem < 0.45)
        around = [(0.5, 0, hips * 1.05, deep + 0.008), (0.56, belly / 2, (hips + waist) / 2, deep + belly / 3)]
        below = [] if skirt else [(hem, 0, hips * (1.06 + 0.6 * (0.5 - hem)), deep + 0.012)]
        profile = (
            below
            + [row for row in around if row[0] > hem + 0.01]
            + [
                (0.62, belly, waist, deep + belly / 2),
                (0.70, bust / 2, s * 0.80, 0.064 * girth**0.5 + bust),
                (0.755, bust / 3, s * 0.88, 0.062 * girth**0.5 + bust / 2),
                (0.79, 0, s * 0.92, 0.054),
                (0.812, -0.004, s * 0.80, 0.046),
                (0.832, -0.006, s * 0.52, 0.04),
                (0.85, -0.008, 0.036, 0.034),
            ]
        )
        if skirt:
            profile = [(0.56, 0, waist * 1.04, deep)] + [row for row in profile if row[0] > 0.57]
        self.lathe(profile, person.top, 0.0)
        if person.bag in ("backpack", "shoulder"):
            strap = Strap(person.bag_colour, side=person.bag_side * (person.bag == "shoulder"))
            self.lathe([(z, y, w + 0.004, d + 0.004) for z, y, w, d in profile if z < 0.84], strap, 0.0005)

    def arms(self) -> None:
        """Arms swing against the legs."""
        person, view, slim = self.person, self.view, self.person.girth**0.5
        for side, phase in ((-1, view.phase + np.pi), (1, view.phase)):
            swing = 0.85 * view.stride * np.sin(phase)
            fore = swing + view.elbow
            shoulder = np.array([side * person.shoulders * 0.87, -0.004, 0.778 - self.drop])
            elbow = shoulder + 0.165 * np.array([side * 0.17, np.sin(swing), -np.cos(swing)])
            wrist = elbow + 0.13 * np.array([side * -0.04, np.sin(fore), -np.cos(fore)])
            hand = wrist + 0.035 * np.array([0, np.sin(fore), -np.cos(fore)])
            self.hands[side] = hand
            self.limb(wrist, hand, 0.016, 0.014, self.skin, 0.02)
            bare_fore, bare = person.sleeve < 1, person.sleeve == 0
            self.limb(elbow, wrist, 0.026 * slim, 0.018, self.skin if bare_fore else person.sleeves, 0.02)
            self.limb(shoulder, elbow, 0.034 * slim, 0.028 * slim, self.skin if bare else person.sleeves, 0.021)

    def carried(self) -> None:
        """Bags."""
        person, side = self.person, self.person.bag_side
        hand = self.hands[side]
        if person.bag == "backpack":
            self.lump((0, -0.095, 0.70 - self.drop), (0.085, 0.05, 0.11), self.bag, 4)
            self.lump((0, -0.13, 0.66 - self.drop), (0.062, 0.03, 0.05), self.bag, 4, -0.01)
        elif person.bag == "shoulder":
            self.lump((side * (person.hips + 0.035), 0.0, 0.53 - self.drop), (0.05, 0.07, 0.055), self.bag, 5, 0.03)
        elif person.bag == "hand":
            self.limb(hand, hand - [0, 0, 0.05], 0.012, 0.03, self.bag, 0.0)
            self.lump(hand - [0, 0, 0.095], (0.045, 0.065, 0.055), self.bag, 4, 0.02)
        elif person.bag == "case":
            x, y = hand[0] + 0.04 * side, hand[1] - 0.06
            self.limb(hand, (x, y, 0.2), 0.008, 0.008, Fabric(BLACK), 0.01)
            self.lump((x, y, 0.12), (0.075, 0.045, 0.115), self.bag, 6, 0.02)

    def head(self) -> None:
        """Neck, face, hair and what is worn on it."""
        person, down = self.person, self.drop
        hair, hat = Fabric(person.hair), Fabric(person.headwear)
        face = Face(person.skin, person.hair, glasses=person.glasses, beard=person.beard)
        self.limb((0, 0, 0.88 - down), (0, 0.014, 0.838 - down), 0.028, 0.03, self.skin, 0.001)
        self.lump((0, 0.012, 0.928 - down), (0.045, 0.055, 0.067), face, 2.1, 0.01)
        self.lump((0, 0.066, 0.922 - down), (0.010, 0.012, 0.012), self.skin, 2.0, 0.011)
        if person.hair_style == "long":
            self.lump((0, -0.028, 0.885 - down), (0.054, 0.042, 0.085), hair, 2.6, -0.004)
        elif person.hair_style == "tail":
            self.limb((0, -0.06, 0.95 - down), (0, -0.078, 0.85 - down), 0.022, 0.012, hair)
        elif person.hair_style == "bun":
            self.lump((0, -0.035, 0.995 - down), (0.027, 0.027, 0.024), hair)
        worn = person.hair_style in ("cap", "beanie")
        if person.hair_style != "bald":
            self.lump((0, 0.004, 0.935 - down), (0.050, 0.060, 0.070), Hair(person.hair), 2.1, 0.012)
        if worn:
            self.lump((0, 0.006, 0.94 - down), (0.052, 0.064, 0.072), Hair(person.headwear, hat=True), 2.1, 0.013)
        if person.hair_style == "cap":
            self.lump((0, 0.076, 0.966 - down), (0.04, 0.045, 0.010), hat, 2.0, 0.01)
