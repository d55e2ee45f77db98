"""People and animals of hard clips: torsos with jointed arms and legs, each part with a surface of its own.

Owns their anatomy, clothes and gaits, drawn by chance. Pure functions of a random generator, any thread. Never draws
on a picture.

They teach that garments, skin and hair are one thing: of a person or an animal, truth is the whole.
"""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np

from engines.synthetic.body import Body, Limb
from engines.synthetic.shape import NUM_VERTICES, TEXTURE_SIZE, Swing, Thing, draw_swing, scaled
from engines.synthetic.texture import Image, colour, crop, paint, palette, structure

DOWN = math.pi / 2
_THETA = np.linspace(0, 2 * math.pi, NUM_VERTICES, endpoint=False)
_HUE_OF_SKIN, _HUE_OF_FUR = (4, 18), (6, 25)  # of 180
_SIZES = (0.06, 0.22)
"""Radii of torsos; a person is five of them high, an animal three long."""
_POSTURES = ("stands", "walks", "walks", "sits", "reaches")


def draw_person(rng: np.random.Generator, thing: Thing, pictures: list[Image], *, speed: float) -> Body:
    """Upright or seated; top, trousers or skirt, skin, hair and shoes differ."""
    wide = float(rng.uniform(0.36, 0.6))
    posture = str(rng.choice(_POSTURES))
    top, bottom, shoes = cloth(rng, pictures), cloth(rng, pictures), plain(rng, _any_colour(rng))
    skin = plain(rng, _tinted(rng, _HUE_OF_SKIN, saturation=(0.2, 0.65), value=(0.25, 0.98)))
    limbs = _legs(rng, posture, wide, speed=speed, textures=(bottom, skin, shoes))
    if rng.random() < 0.25:  # a skirt, or a coat
        skirt = draw_swing(rng, DOWN, 0.08, period=(20, 60), speed=speed)
        surface = top if rng.random() < 0.4 else bottom
        limbs.append(Limb((0.0, 0.7), float(rng.uniform(0.3, 0.9)), wide * 1.05, skirt, surface))
    limbs += _arms(rng, posture, wide, speed=speed, textures=(top, skin))
    limbs += _head(rng, speed=speed, skin=skin)
    torso = 1 / (np.abs(np.cos(_THETA) / wide) ** 4 + np.abs(np.sin(_THETA)) ** 4) ** 0.25
    lean = draw_swing(rng, rng.normal(0, 0.15), rng.uniform(0, 0.15), period=(20, 80), speed=speed)
    size = scaled(thing.radius, float(rng.uniform(*_SIZES)) / thing.radius.centre)
    return Body(replace(thing, outline=torso, wobble=(), radius=size, angle=lean, spin=0.0, texture=top), tuple(limbs))


def draw_animal(rng: np.random.Generator, thing: Thing, *, speed: float) -> Body:
    """On four legs, seen from the side; its fur has patches."""
    fur, high = _fur(rng), float(rng.uniform(0.4, 0.62))
    length = 1 / np.hypot(np.cos(_THETA), np.sin(_THETA) / high)
    back, legs = float(rng.uniform(0.5, 1.1)), list[Limb]()
    for x in (-0.8, -0.65, 0.6, 0.75):
        hip = draw_swing(rng, DOWN, rng.uniform(0, 0.7), period=(8, 30), speed=speed)
        upper = Limb((x, high * 0.5), back * 0.5, high * 0.32, hip, fur if rng.random() < 0.5 else None)
        knee = draw_swing(rng, rng.uniform(-0.3, 0.3), rng.uniform(0, 0.5), period=(8, 30), speed=speed)
        legs += [upper, Limb((0.0, 0.0), back * 0.5, high * 0.2, knee, upper.texture, hangs_on=upper)]
    nod = draw_swing(rng, -rng.uniform(0.1, 1.2), rng.uniform(0, 0.5), period=(15, 60), speed=speed)
    neck = Limb((0.75, -high * 0.3), float(rng.uniform(0.2, 0.6)), high * 0.45, nod)
    turn = draw_swing(rng, rng.uniform(0.2, 1.2), 0.2, period=(15, 60), speed=speed)
    head = Limb((0.0, 0.0), float(rng.uniform(0.15, 0.5)), high * rng.uniform(0.4, 0.6), turn, _fur(rng), neck)
    ear = draw_swing(rng, -1.5, 0.3, period=(15, 60), speed=speed)
    ears = Limb((-0.15, -0.05), 0.3, 0.12, ear, head.texture, neck)
    wag = draw_swing(rng, rng.uniform(2.2, 4.0), rng.uniform(0, 0.6), period=(6, 30), speed=speed)
    tail = Limb((-0.95, -high * 0.3), float(rng.uniform(0.2, 0.9)), float(rng.uniform(0.05, 0.13)), wag)
    tilt = draw_swing(rng, 0, rng.uniform(0, 0.3), period=(15, 60), speed=speed)
    whole = replace(thing, outline=length, wobble=(), angle=tilt, spin=0.0, texture=fur)
    return Body(
        replace(whole, radius=scaled(thing.radius, float(rng.uniform(*_SIZES)) / thing.radius.centre)),
        (*legs, neck, head, ears, tail),
    )


def cloth(rng: np.random.Generator, pictures: list[Image]) -> Image:
    """A surface with folds: plain, printed, or a piece of a picture."""
    kind = rng.random()
    if pictures and kind < 0.25:
        return crop(rng, pictures[int(rng.integers(len(pictures)))], TEXTURE_SIZE)
    if kind < 0.7:
        return plain(rng, _any_colour(rng))
    colours = [_any_colour(rng), _any_colour(rng)]
    return paint(structure(rng, TEXTURE_SIZE, cycles=(2, 14), plain=0.3), palette(rng, colours))


def plain(rng: np.random.Generator, base: Image) -> Image:
    """One colour in light and shadow, with some grain."""
    folds = cv2.resize(
        rng.normal(0, rng.uniform(2, 22), (8, 8)), (TEXTURE_SIZE, TEXTURE_SIZE), interpolation=cv2.INTER_CUBIC
    )
    grain = rng.normal(0, rng.uniform(0, 8), (TEXTURE_SIZE, TEXTURE_SIZE))
    return np.clip(base.astype(np.float64) + (folds + grain)[..., None], 0, 255).astype(np.uint8)


def _legs(
    rng: np.random.Generator, posture: str, wide: float, *, speed: float, textures: tuple[Image, Image, Image]
) -> list[Limb]:
    bottom, skin, shoes = textures
    length, thick = float(rng.uniform(0.7, 1.1)), wide * float(rng.uniform(0.36, 0.5))
    stride = {"walks": rng.uniform(0.2, 0.6), "sits": 0.05}.get(posture, rng.uniform(0, 0.15))
    bend = float(rng.uniform(0.6, 1.5)) * float(rng.choice([-1, 1])) if posture == "sits" else 0.0
    shin = skin if rng.random() < 0.3 else bottom
    limbs = []
    for side in (-1, 1):
        hip = draw_swing(rng, DOWN - 0.12 * side - bend, stride, period=(12, 40), speed=speed)
        thigh = Limb((side * wide * 0.5, 0.85), length, thick, hip, bottom)
        bent = bend * rng.uniform(0.7, 1.6) if bend else rng.uniform(0, 0.3)
        knee = draw_swing(rng, bent, stride * 0.6, period=(12, 40), speed=speed)
        calf = Limb((0.0, 0.0), length * 0.95, thick * 0.75, knee, shin, thigh)
        toes = draw_swing(rng, -1.3 * side if rng.random() < 0.7 else 0.2, 0.1, period=(20, 60), speed=speed)
        limbs += [thigh, calf, Limb((0.0, 0.0), 0.2, thick * 0.6, toes, shoes, calf)]
    return limbs


def _arms(
    rng: np.random.Generator, posture: str, wide: float, *, speed: float, textures: tuple[Image, Image]
) -> list[Limb]:
    top, skin = textures
    sleeves = int(rng.integers(0, 3))  # none, short, long
    length, thick = float(rng.uniform(0.55, 0.85)), float(rng.uniform(0.13, 0.2))
    raised = rng.uniform(0.3, 2.6, 2) if posture == "reaches" else rng.uniform(0, 0.6, 2)
    limbs = []
    for side, high in zip((-1, 1), raised, strict=True):
        shoulder = draw_swing(rng, DOWN - side * high, rng.uniform(0, 0.5), period=(12, 60), speed=speed)
        upper = Limb((side * wide * 0.85, -0.75), length, thick, shoulder, top if sleeves else skin)
        bend = draw_swing(rng, -side * rng.uniform(-0.6, 1.6), rng.uniform(0, 0.4), period=(12, 60), speed=speed)
        fore = Limb((0.0, 0.0), length * 0.9, thick * 0.8, bend, top if sleeves == 2 else skin, upper)
        limbs += [upper, fore, Limb((0.0, 0.0), 0.08, thick * 0.9, bend, skin, fore)]
    return limbs


def _head(rng: np.random.Generator, *, speed: float, skin: Image) -> list[Limb]:
    nod = draw_swing(rng, -DOWN + rng.normal(0, 0.15), 0.15, period=(20, 60), speed=speed)
    neck = Limb((0.0, -0.95), 0.25, 0.13, nod, skin)
    upright = Swing(0.0, (0, 0), (0, 0), (0, 0))
    head = Limb((0.0, -0.1), 0.22, float(rng.uniform(0.24, 0.33)), upright, skin, neck)
    if rng.random() < 0.12:
        return [neck, head]
    dark = rng.random() < 0.75
    tone = _tinted(rng, _HUE_OF_FUR, saturation=(0.2, 0.7), value=(0.03, 0.35) if dark else (0.4, 0.9))
    hair, wide = plain(rng, tone if rng.random() < 0.85 else _any_colour(rng)), head.width
    away = float(rng.uniform(-0.12, 0.12))
    crown = Limb((away, 0.0), 0.08, wide * float(rng.uniform(0.8, 1.05)), upright, hair, head)
    if rng.random() < 0.5:
        return [neck, head, crown]
    fall = draw_swing(rng, math.pi + rng.normal(0, 0.3), 0.15, period=(15, 60), speed=speed)
    side = float(rng.choice([-1, 1])) * wide * 0.7
    lock = Limb((side, 0.05), float(rng.uniform(0.3, 0.9)), wide * 0.45, fall, hair, head)
    return [neck, head, lock, crown]


def _fur(rng: np.random.Generator) -> Image:
    tones = [
        _tinted(rng, _HUE_OF_FUR, saturation=(0.0, 0.6), value=(0.05, 0.98)) for _ in range(int(rng.integers(1, 4)))
    ]
    if len(tones) == 1:
        return plain(rng, tones[0])
    return paint(structure(rng, TEXTURE_SIZE, cycles=(1, 5), plain=0.9), palette(rng, tones))


def _any_colour(rng: np.random.Generator) -> Image:
    return colour(rng, saturation=(0, float(rng.uniform(0.15, 1))), value=(0.06, 1))


def _tinted(
    rng: np.random.Generator, hue: tuple[int, int], *, saturation: tuple[float, float], value: tuple[float, float]
) -> Image:
    hsv = np.array([[[rng.uniform(*hue), 255 * rng.uniform(*saturation), 255 * rng.uniform(*value)]]], np.uint8)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)[0, 0], np.uint8)
