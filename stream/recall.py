"""`Recall`: a prompt on a picture of the past.

Owns: the order of what happens to an object's memory then. Lives within one call of the tracker, in that thread.
Never: waits for the device, or changes another object.

SAM 2 has no such thing: its predictor stops the video for a prompt, then goes on from there. A live picture goes on
meanwhile, so this is our own extension, made of the official steps: the object's memory is rewound to the picture, the
prompt is decoded on that picture's own features (a correction on the features that the object's memory had made of
them, from its mask there), written with that picture's time, and then the object alone follows the kept pictures
since then, as if it had been prompted in time. What is exact: the decoded picture, all distances in time, and for a
new object everything, where every picture since then is kept. What is not: an object that is rewound has lost those
of its recent memories (6 frames, 15 pointers) that later pictures had overwritten; and pictures that were processed but
not kept only make it older. The memory policy is SAM 2's for as long as it catches up.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np

from engines.spec import Engine, FrameFeatures
from stream.history import History, Picture, Sight
from stream.memory import MemoryBank
from stream.pointing import decode
from stream.prompt import Prompt


@dataclass(frozen=True, slots=True)
class Recall:
    """One object (its row, and what the history calls it) and one kept picture of its camera."""

    engine: Engine
    bank: MemoryBank
    history: History
    camera: str
    picture: Picture

    @property
    def distance(self) -> int:
        """How many frames the camera's next picture is after this one."""
        return self.history.distance(self.camera, self.picture)

    def add(self, row: int, item: Hashable, prompt: Prompt) -> None:
        """Prompt an object on the picture, without regard to its memory."""
        age = self.bank.num_frames(row)
        assert age == 0 or age >= self.distance, "an object that is younger than the picture has a fresh row"
        self._prompt(row, item, prompt, sight=self.history.sight(self.camera, self.picture), as_cond=True)

    def refine(self, row: int, item: Hashable, prompt: Prompt, *, as_cond: bool) -> bool:
        """Correct it there, starting from its mask there; False when that is not known any more."""
        sight = self.history.sight_of(self.camera, self.picture, item)
        if sight is None or self.distance > self.bank.num_frames(row):
            return False
        self._prompt(row, item, prompt, sight=sight, as_cond=as_cond or sight.conditioned_1chw is None)
        return True

    def _prompt(self, row: int, item: Hashable, prompt: Prompt, *, sight: Sight, as_cond: bool) -> None:
        bank = self.bank
        bank.go_back(row, self.distance)
        found = decode(self.engine, sight, prompt)
        if as_cond:
            bank.write_prompted(row, found)
        else:
            bank.write_recent([row], found)
        self.history.put_object(
            self.camera, item, conditioned_1chw=sight.conditioned_1chw,
            logits_1hw=found.logits_bhw[:1], index=self.picture.index,
        )  # fmt: skip
        bank.advance([row])
        self._catch_up(row, item)

    def _catch_up(self, row: int, item: Hashable) -> None:
        """Follow the object through the pictures since then."""
        index = self.picture.index
        for picture in self.history.after(self.camera, self.picture):
            for _ in range(picture.index - index - 1):
                self.bank.advance([row])
            index = picture.index
            if not self.bank.is_prompted(row):
                self._follow(row, item, picture)
            self.bank.advance([row])
        for _ in range(self.picture.index + self.distance - index - 1):
            self.bank.advance([row])

    def _follow(self, row: int, item: Hashable, picture: Picture) -> None:
        rows, frames = self.engine.row_buckets[0], self.engine.frame_buckets[0]
        frame = self.history.sight(self.camera, picture).frame
        if frames > 1:
            frame = FrameFeatures(*(x.expand(frames, *x.shape[1:]) for x in frame))
        read = self.bank.read([row], batch=rows)
        found, conditioned = self.engine.track(frame, self.bank.upload(np.zeros(rows, np.int64)), read)
        self.bank.write_recent([row], found)
        self.history.put_object(
            self.camera, item, conditioned_1chw=conditioned[:1],
            logits_1hw=found.logits_bhw[:1], index=picture.index,
        )  # fmt: skip
