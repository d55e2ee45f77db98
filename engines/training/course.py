"""The course that made nano: its stages, one after the other, as a table.

Owns the table and what a stage is. Pure values, any thread. Never trains: `engines.training.loop` does.

A stage ends after its steps, or after its minutes where no steps are given. Its learning rate warms up, then falls with
half a cosine from `rate` to `floor * rate`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stage:
    """One stretch of training on one kind of data."""

    name: str
    image_size: int
    clips: int
    """Scenes a step; each brings up to three objects."""
    frames: int
    """Of a short clip; 1: still pictures. Live stages choose lengths of their own, up to 60."""
    rate: float
    floor: float
    seed: int
    steps: int = 0
    minutes: float = 0.0
    live: bool = False
    """Long clips that are tracked on, two frames a step (`engines.training.live`)."""
    hard_share: float = 0.0
    """So many scenes are hard ones (`engines.synthetic.hard`)."""
    objects: int = 3
    blend: str = ""
    """The name of an earlier stage: this one begins half way between its weights and the newest. Still pictures teach
    what a thing is and unlearn tracking; the mean of before and after can do both, and learns on faster."""

    def share(self, steps: int, seconds: float) -> float:
        """How much of the stage is over after so many steps and seconds."""
        return steps / self.steps if self.steps else seconds / (60 * self.minutes)


COURSE = (
    Stage("stills", 128, 16, 1, 1e-3, 0.5, seed=1, steps=1878),
    Stage("stills, on", 128, 16, 1, 7e-4, 0.05, seed=3, steps=1198),
    Stage("short clips", 128, 8, 3, 7e-4, 0.5, seed=4, steps=630),
    Stage("longer clips", 192, 4, 12, 6e-4, 0.5, seed=5, steps=601),
    Stage("more scenes", 192, 8, 9, 6e-4, 0.5, seed=6, steps=1763),
    Stage("interruptions", 192, 8, 9, 4e-4, 0.01, seed=8, steps=621),
    Stage("finer pictures", 256, 8, 12, 4e-4, 0.1, seed=21, steps=544),
    Stage("live clips", 256, 4, 1, 5e-4, 0.5, seed=31, steps=314, live=True),
    Stage("hard scenes", 256, 4, 1, 5e-4, 0.03, seed=32, steps=3290, live=True, hard_share=0.35),
    Stage("whole things", 192, 12, 1, 6e-4, 0.3, seed=41, steps=4541, hard_share=0.7),
    Stage("whole things, on", 192, 24, 1, 5e-4, 0.5, seed=51, steps=2222, hard_share=0.7),
    Stage("whole clips", 256, 8, 1, 5e-4, 0.02, seed=61, steps=2789, live=True, hard_share=0.35, blend="hard scenes"),
)
"""Seeds and steps as nano was trained; the stages of the first 6,691 steps are told in engines/zoo/README.md."""
