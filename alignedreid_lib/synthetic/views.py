"""How a camera sees a person at one moment. Shown in notebooks/01_datasets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from alignedreid_lib.synthetic.scenery import Camera

OBSTACLES = ("none", "pole", "bush", "car", "beside", "behind")
OBSTACLE_WEIGHTS = (0.8, 0.04, 0.03, 0.03, 0.04, 0.06)


@dataclass(frozen=True)
class View:
    """Everything that changes between images of one person."""

    camera: Camera
    yaw: float  # 0 faces the camera, pi/2 walks to the right, pi shows the back
    phase: float  # in the gait, radians
    stride: float  # swing of the legs, radians
    elbow: float  # bend of the arms, radians
    place: tuple[float, float]  # where the feet are, street pixels
    scale: float  # the person's height over the street's unit
    gain: float  # for this image's light
    obstacle: str  # `none | pole | bush | car | beside | behind`
    seed: int  # for the noise and the obstacle

    @classmethod
    def sample(cls, rng: np.random.Generator, camera: Camera) -> View:
        """A moment in front of a camera."""
        walking = rng.random() < 0.85
        return cls(
            camera=camera,
            yaw=float((camera.yaw + rng.normal(0, 0.4) + np.pi * (rng.random() < 0.1)) % (2 * np.pi)),
            phase=float(rng.uniform(0, 2 * np.pi)),
            stride=float(rng.uniform(0.3, 0.5) if walking else 0.04),
            elbow=float(rng.uniform(0.15, 0.7)),
            place=(float(rng.uniform(260, 1150)), float(rng.uniform(480, 570))),
            scale=float(rng.uniform(0.85, 1.12)),
            gain=float(np.exp(rng.normal(0, 0.06))),
            obstacle=OBSTACLES[rng.choice(len(OBSTACLES), p=OBSTACLE_WEIGHTS)],
            seed=int(rng.integers(2**31)),
        )
