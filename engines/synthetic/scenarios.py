"""Scenarios: generated clips of what makes a tracker take one thing for another, with the truth of every thing in them.

Owns: what happens in each scenario; how things look and are drawn is the package's. Any thread; a clip holds no state
that rendering changes. Never: reads a file.

Objects come first and have prompts in frame 0; then come things without prompts: look-alikes, and what hides an object.
All are in the truth, so that a mask on the wrong one can be named. Every draw has other outlines, colours and speeds.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.synthetic.clip import ClipSpec, SyntheticClip
from engines.synthetic.shape import Swing, Thing, draw_thing
from engines.synthetic.texture import Image

SCENARIO_SEEDS = range(2_100_000_000, 2_100_001_000)
NUM_FRAMES = 60
SIDE = 256  # pixels
_MARGIN = 32  # what a shaking camera may see of the scene beyond the picture
_BLUR_TICKS = 5  # moments that a blurred picture is the mean of
_CUT = range(24, 36)  # frames of the other scene


@dataclass(frozen=True, slots=True)
class ScenarioSpec:
    """Equal specs give equal pixels."""

    name: str
    seed: int = SCENARIO_SEEDS[0]
    num_frames: int = NUM_FRAMES


def _path(start: float, stop: float, *, frames: float = NUM_FRAMES) -> Swing:
    """From `start` to `stop`, slow at both ends, and back again."""
    return Swing((start + stop) / 2, ((start - stop) / 2, 0.0), (math.pi / frames, 0.0), (math.pi / 2, 0.0))


def _still(value: float) -> Swing:
    return Swing(value, (0.0, 0.0), (0.0, 0.0), (0.0, 0.0))


def _thing(rng: np.random.Generator, radius: float) -> Thing:
    """Of this mean size, without a path of its own."""
    drawn = draw_thing(rng, speed=1.0, leaves=False)
    size = dataclasses.replace(drawn.radius, centre=radius, amplitude=(radius * 0.05, 0.0))
    return dataclasses.replace(drawn, radius=size, spin=drawn.spin / 2)


def _slowed(thing: Thing, ticks: int) -> Thing:
    """The same, with so many moments in every frame."""

    def slow(swing: Swing) -> Swing:
        return dataclasses.replace(swing, omega=(swing.omega[0] / ticks, swing.omega[1] / ticks))

    return dataclasses.replace(
        thing, x=slow(thing.x), y=slow(thing.y), radius=slow(thing.radius), angle=slow(thing.angle),
        spin=thing.spin / ticks, wobble=tuple((lobes, slow(swing)) for lobes, swing in thing.wobble),
    )  # fmt: skip


def _moved(thing: Thing, x: Swing, y: Swing) -> Thing:
    return dataclasses.replace(thing, x=x, y=y)


@dataclass(frozen=True, slots=True)
class _Scene:
    """The first `num_objects` of the things have prompts."""

    things: tuple[Thing, ...]
    num_objects: int
    order: tuple[int, ...]  # in which they are drawn; the last one lies on top


def _crossing_twins(rng: np.random.Generator) -> _Scene:
    """Two that look the same pass through each other's place; both have prompts."""
    twin, height = _thing(rng, rng.uniform(0.09, 0.12)), rng.uniform(0.4, 0.6)
    gap = rng.uniform(0.03, 0.08)
    one = _moved(twin, _path(0.15, 0.85), _still(height - gap))
    other = _moved(twin, _path(0.85, 0.15), _still(height + gap))
    return _Scene((one, other), 2, (1, 0))


def _passing_twin(rng: np.random.Generator) -> _Scene:
    """One that looks the same, and has no prompt, passes in front of the object."""
    twin, height = _thing(rng, rng.uniform(0.09, 0.12)), rng.uniform(0.4, 0.6)
    gap = rng.uniform(0.02, 0.07)
    one = _moved(twin, _path(0.3, 0.7), _still(height - gap))
    other = _moved(twin, _path(0.95, 0.05), _still(height + gap))
    return _Scene((one, other), 1, (0, 1))


def _full_occlusion(rng: np.random.Generator) -> _Scene:
    """The object goes behind a wall for a while, and a look-alike waits on this side of it."""
    thing, height = _thing(rng, rng.uniform(0.07, 0.09)), rng.uniform(0.35, 0.65)
    wall = _moved(_thing(rng, 0.17), _still(0.5), _still(height))
    other = _moved(thing, _path(0.2, 0.32), _still(height + (0.3 if height < 0.5 else -0.3)))
    hidden = _moved(thing, _path(0.1, 0.9), _still(height))
    wall = dataclasses.replace(wall, outline=np.full_like(wall.outline, 1.0), wobble=())
    return _Scene((hidden, other, wall), 1, (0, 1, 2))


def _exit_and_return(rng: np.random.Generator) -> _Scene:
    """The object leaves the picture and comes back; a look-alike stays."""
    thing, height = _thing(rng, rng.uniform(0.09, 0.12)), rng.uniform(0.3, 0.7)
    gone = _moved(thing, Swing(0.5, (0.75, 0.0), (2 * math.pi / 80, 0.0), (0.0, 0.0)), _still(height))
    other = _moved(thing, _path(0.3, 0.5), _still(height + (0.32 if height < 0.5 else -0.32)))
    return _Scene((gone, other), 1, (1, 0))


def _scale_change(rng: np.random.Generator) -> _Scene:
    """The object comes closer and goes away again."""
    thing = _thing(rng, 0.1)
    thing = dataclasses.replace(thing, radius=Swing(0.13, (0.07, 0.0), (2 * math.pi / 60, 0.0), (0.0, 0.0)))
    other = _moved(_thing(rng, 0.09), _path(0.15, 0.3), _still(0.8))
    return _Scene((_moved(thing, _path(0.4, 0.65), _still(0.45)), other), 1, (1, 0))


def _fast(rng: np.random.Generator) -> _Scene:
    """The object goes to and fro, a good part of its size in every frame; one like it does so elsewhere."""
    thing, phase = _thing(rng, 0.08), rng.uniform(0, 6)
    across = Swing(0.5, (0.36, 0.0), (2 * math.pi / 26, 0.0), (phase, 0.0))
    other = Swing(0.5, (0.3, 0.0), (2 * math.pi / 31, 0.0), (phase + 2, 0.0))
    return _Scene((_moved(thing, across, _still(0.35)), _moved(thing, other, _still(0.72))), 1, (1, 0))


def _shaken(rng: np.random.Generator) -> _Scene:
    """An object and one like it, slow; the camera is not."""
    thing, height = _thing(rng, rng.uniform(0.07, 0.09)), rng.uniform(0.4, 0.6)
    one, other = _moved(thing, _path(0.35, 0.45), _still(height)), _moved(thing, _path(0.68, 0.6), _still(height + 0.1))
    return _Scene((one, other), 1, (1, 0))


def _two_apart(rng: np.random.Generator) -> _Scene:
    """Two different objects that keep to themselves."""
    one, other = (_thing(rng, rng.uniform(0.1, 0.15)) for _ in range(2))
    first = _moved(one, _path(0.2, 0.4), _path(0.3, 0.5, frames=40))
    return _Scene((first, _moved(other, _path(0.75, 0.6), _path(0.75, 0.6, frames=30))), 2, (0, 1))


_SCENES = {
    "easy": _two_apart,
    "crossing_twins": _crossing_twins,
    "passing_twin": _passing_twin,
    "full_occlusion": _full_occlusion,
    "exit_and_return": _exit_and_return,
    "scale_change": _scale_change,
    "motion_blur": _fast,
    "camera_shake": _shaken,
    "lighting_change": _two_apart,
    "scene_cut": _two_apart,
}
SCENARIOS = tuple(_SCENES)
EASY = ("easy", "scale_change", "lighting_change")  # nothing there is taken for something else


class ScenarioClip(SyntheticClip):
    """A scenario's pictures and truth. Immutable after construction."""

    def __init__(self, scenario: ScenarioSpec) -> None:
        if scenario.name not in _SCENES:
            raise ValueError(f"there is no scenario {scenario.name!r}; expected one of {', '.join(SCENARIOS)}")
        number = SCENARIOS.index(scenario.name)
        rng = np.random.default_rng((scenario.seed, number))
        scene = _SCENES[scenario.name](rng)
        self.scenario, self.num_objects = scenario, scene.num_objects
        self._ticks = _BLUR_TICKS if scenario.name == "motion_blur" else 1
        self._scene = dataclasses.replace(scene, things=tuple(_slowed(x, self._ticks) for x in scene.things))
        self._margin = _MARGIN if scenario.name == "camera_shake" else 0
        self._jolts = np.clip(rng.normal(0, _MARGIN / 3, (scenario.num_frames, 2)), -_MARGIN, _MARGIN).astype(int)
        self._flicker = float(rng.uniform(0, 6))
        side, frames, seed = SIDE + 2 * self._margin, scenario.num_frames * self._ticks, scenario.seed * 16 + number
        super().__init__(ClipSpec(seed, frames, side, side, len(scene.things), 0, speed=0.3 / self._ticks))
        self._other = SyntheticClip(ClipSpec(seed, frames, side, side, num_objects=0, num_distractors=3))

    def frame(self, index: int) -> Image:
        ticks = range(index * self._ticks - self._ticks // 2, index * self._ticks + (self._ticks + 1) // 2)
        if self.scenario.name == "scene_cut" and index in _CUT:
            picture = self._other.frame(index)
        elif self._ticks > 1:
            shots = np.stack([super(ScenarioClip, self).frame(max(0, tick)) for tick in ticks])
            picture = shots.mean(axis=0).astype(np.uint8)
        else:
            picture = super().frame(index)
        if self.scenario.name == "lighting_change":
            picture = np.asarray(cv2.convertScaleAbs(picture, alpha=self._light(index)), np.uint8)
        return np.ascontiguousarray(picture[self._window(index)])

    def masks(self, index: int) -> NDArray[np.bool_]:
        """The visible part of every thing, objects first: (num_things, height, width)."""
        masks_nhw = super().masks(index * self._ticks)
        if self.scenario.name == "scene_cut" and index in _CUT:
            masks_nhw = np.zeros_like(masks_nhw)
        return np.ascontiguousarray(masks_nhw[(slice(None), *self._window(index))])

    def _light(self, index: int) -> float:
        """Dark in the middle of the clip, and flickering."""
        dusk = 0.5 * math.sin(math.pi * index / self.scenario.num_frames) ** 2
        return 1.0 - dusk + 0.12 * math.sin(0.9 * index + self._flicker)

    def _window(self, index: int) -> tuple[slice, slice]:
        """What the camera sees of the scene."""
        if not self._margin:
            return slice(None), slice(None)
        y, x = self._jolts[index] + self._margin
        return slice(y, y + SIDE), slice(x, x + SIDE)

    def _draw_things(self, rng: np.random.Generator) -> tuple[list[Thing], list[int]]:
        return list(self._scene.things), list(self._scene.order)
