"""`Reel`: what has come of one camera, and what of it is on the screen.

Owns: the camera's pictures, masks and state. Runs in the view's main thread. Never: asks for anything.
"""

from __future__ import annotations

import cv2
import numpy as np

from stream.client import FrameMessage, MasksMessage, StateMessage
from stream.frame import CameraCondition
from stream.overlay import Picture
from stream.view.pairs import Joiner, Pair, Rate

SILENT_S = 3.0
END_OF_FILE = "end of file"  # the reason that the capture thread gives for a file that does not loop
WITHOUT_PICTURES = (CameraCondition.OFFLINE, CameraCondition.FROZEN, CameraCondition.PAUSED)


class Reel:
    """Written by the view's thread. `shown` is what was decoded last; `newest` came after it."""

    def __init__(self, camera: str) -> None:
        self.camera = camera
        self.shown: tuple[MasksMessage, Picture] | None = None
        self.newest: Pair | None = None
        self.ended_s: float | None = None  # when the camera's file ended
        self._joiner, self._rate, self._fps = Joiner(), Rate(), 0.0
        self._state: StateMessage | None = None
        self._heard_s: float | None = None  # when the last picture or masks came
        self._is_seen = True  # by `take_unseen`

    def put(self, message: MasksMessage | FrameMessage | StateMessage, now_s: float) -> None:
        if isinstance(message, StateMessage):
            self._state = message
            has_ended = message.condition is CameraCondition.OFFLINE and message.reason == END_OF_FILE
            self.ended_s = now_s if has_ended else None
            return
        self._heard_s = now_s
        if isinstance(message, MasksMessage):
            self._fps = self._rate.put(message.published_ns)
        self.newest = self._joiner.put(message) or self.newest

    def advance(self) -> bool:
        """Decode the newest picture; False when there is none, or it is not one for its masks."""
        if self.newest is None:
            return False
        (masks, frame), self.newest = self.newest, None
        image_hwc = cv2.imdecode(np.frombuffer(frame.data, np.uint8), cv2.IMREAD_COLOR)
        if image_hwc is None or image_hwc.shape[:2] != (masks.height, masks.width):
            return False  # not a picture of this size: whatever it is, the masks do not belong on it
        self.shown, self._is_seen = (masks, np.asarray(image_hwc, np.uint8)), False
        return True

    def take_unseen(self) -> MasksMessage | None:
        """The masks of the shown picture, the first time only."""
        if self._is_seen or self.shown is None:
            return None
        self._is_seen = True
        return self.shown[0]

    def figures(self) -> str:
        """Of the shown picture, for a line."""
        if self.shown is None:
            return self.camera
        masks = self.shown[0]
        latency_ms = (masks.published_ns - masks.arrival_ns) / 1e6
        figures = f"{self.camera}  {masks.epoch}/{masks.seq}  {self._fps:.1f} fps  {latency_ms:.0f} ms"
        condition = self._state.condition if self._state is not None else CameraCondition.ONLINE
        return f"{figures}  {condition.value}"

    def trouble(self, now_s: float) -> str:
        """Why no pictures come; "" when they do."""
        state = self._state
        is_silent = self._heard_s is None or now_s - self._heard_s > SILENT_S
        if state is not None and state.condition in WITHOUT_PICTURES:
            reason = f": {state.reason}" if state.reason else ""
            return f"{self.camera} is {state.condition.value}{reason}"
        if is_silent and self._heard_s is not None:
            return f"{self.camera}: no picture for {now_s - self._heard_s:.0f} s, waiting for the daemon"
        return f"{self.camera}: waiting for the first picture" if self.shown is None else ""

    def problem(self) -> str:
        """What the operator must mend in the daemon."""
        return self._state.problem if self._state is not None else ""
