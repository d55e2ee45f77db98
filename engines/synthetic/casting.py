"""Who plays in a hard clip: shapes, rods, soft, jointed and many-coloured things, people, animals, balls, cut-outs.

Owns their drawing by chance. Pure functions of a random generator, any thread. Never reads a file: textures are handed
in, pictures (BGR) as surfaces and cut-outs (BGRA) as bodies.

People and many-coloured things teach that what moves as one is one: their parts look different, their truth is whole.
"""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np

from engines.synthetic.body import Body, Limb
from engines.synthetic.figures import draw_animal, draw_person
from engines.synthetic.shape import NUM_VERTICES, TEXTURE_SIZE, Swing, Thing, draw_swing, draw_thing, scaled
from engines.synthetic.texture import Image, colour, crop, paint, palette, structure

KINDS = {
    "shape": 0.05,
    "jointed": 0.04,
    "rod": 0.03,
    "soft": 0.04,
    "person": 0.36,
    "animal": 0.1,
    "many-coloured": 0.06,
    "ball": 0.06,
    "cutout": 0.26,
}
_THETA = np.linspace(0, 2 * math.pi, NUM_VERTICES, endpoint=False)


def draw_body(rng: np.random.Generator, *, speed: float, leaves: bool, textures: tuple[Image, ...] = ()) -> Body:
    """A random body; without cut-outs, a shape takes their place."""
    kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
    thing = draw_thing(rng, speed=2.5 * speed if kind == "ball" else speed, leaves=leaves)
    thing = replace(thing, radius=scaled(thing.radius, float(np.exp(rng.uniform(-0.9, 0.45)))))
    cutouts = [texture for texture in textures if texture.shape[2] == 4]
    if kind == "cutout" and cutouts:
        return _cut(rng, thing, cutouts[int(rng.integers(len(cutouts)))], speed=speed)
    pictures = [texture for texture in textures if texture.shape[2] == 3]
    if pictures and rng.random() < 0.3:
        thing = replace(thing, texture=crop(rng, pictures[int(rng.integers(len(pictures)))], TEXTURE_SIZE))
    if kind == "rod":
        length = 1 / np.hypot(np.cos(_THETA), np.sin(_THETA) / rng.uniform(0.08, 0.22))
        return Body(replace(thing, outline=length, wobble=(), radius=scaled(thing.radius, 1.7)))
    if kind == "ball":
        size = float(rng.uniform(0.02, 0.06))
        return Body(
            replace(thing, outline=np.ones(NUM_VERTICES), wobble=(), radius=Swing(size, (0, 0), (0, 0), (0, 0)))
        )
    if kind == "soft":
        return Body(replace(thing, wobble=tuple(_lobe(rng, k, speed) for k in (1, 2, 3, 4, 5))))
    if kind == "person":
        return draw_person(rng, thing, pictures, speed=speed)
    if kind == "animal":
        return draw_animal(rng, thing, speed=speed)
    if kind == "many-coloured":
        return Body(thing, tuple(_part(rng, pictures, speed) for _ in range(int(rng.integers(1, 6)))))
    count = int(rng.integers(2, 6)) if kind == "jointed" else 0
    return Body(thing, tuple(_limb(rng, speed) for _ in range(count)))


def _cut(rng: np.random.Generator, thing: Thing, cutout: Image, *, speed: float) -> Body:
    spin, size = thing.spin * float(rng.random() < 0.3), float(rng.uniform(1.0, 1.6))
    calm = replace(thing, spin=spin, radius=scaled(thing.radius, size))
    bend = [draw_swing(rng, 0, rng.uniform(0, 0.15), period=(15, 60), speed=speed) for _ in range(2)]
    return Body(calm, cutout=cutout, stretch=bend[0], shear=bend[1])


def _lobe(rng: np.random.Generator, lobes: int, speed: float) -> tuple[int, Swing]:
    amplitude = rng.uniform(0.08, 0.3) / math.sqrt(lobes)
    return lobes, draw_swing(rng, rng.normal(0, 0.1), amplitude, period=(12, 60), speed=speed)


def _limb(rng: np.random.Generator, speed: float) -> Limb:
    place, reach = rng.uniform(0, 2 * math.pi), rng.uniform(0.3, 0.8)
    swing = draw_swing(rng, place, rng.uniform(0.1, 0.9), period=(12, 60), speed=speed)
    joint = (float(reach * math.cos(place)), float(reach * math.sin(place)))
    return Limb(joint, float(rng.uniform(0.6, 1.6)), float(rng.uniform(0.08, 0.25)), swing)


def _part(rng: np.random.Generator, pictures: list[Image], speed: float) -> Limb:
    """A patch on the body, or a part that sticks out of it, with a surface of its own."""
    place, reach = rng.uniform(0, 2 * math.pi), rng.uniform(0.0, 1.1)
    swing = draw_swing(rng, place, rng.uniform(0, 0.3), period=(12, 60), speed=speed)
    joint = (float(reach * math.cos(place)), float(reach * math.sin(place)))
    width = float(rng.uniform(0.2, 0.75))
    return Limb(joint, float(rng.uniform(0, 0.8)), width, swing, _texture(rng, pictures))


def _texture(rng: np.random.Generator, pictures: list[Image], *, plain: bool = False) -> Image:
    if pictures and rng.random() < 0.4:
        return crop(rng, pictures[int(rng.integers(len(pictures)))], TEXTURE_SIZE)
    base = colour(rng, saturation=(0, 1), value=(0.1, 1))
    if plain or rng.random() < 0.5:
        noise = rng.normal(0, rng.uniform(1, 14), (TEXTURE_SIZE // 4, TEXTURE_SIZE // 4, 3)) + base
        rough = np.clip(noise, 0, 255).astype(np.uint8)
        return np.asarray(cv2.resize(rough, (TEXTURE_SIZE, TEXTURE_SIZE), interpolation=cv2.INTER_CUBIC), np.uint8)
    colours = [base, colour(rng, saturation=(0, 1), value=(0.1, 1))]
    return paint(structure(rng, TEXTURE_SIZE, cycles=(1.5, 8), plain=0.5), palette(rng, colours))
