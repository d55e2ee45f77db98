"""The demo's window: the newest picture with its masks, while the demo runs.

Owns: the window. Runs in the demo's main thread: windows want it. Never: opens one where there is no display.
"""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import Self

import cv2
import numpy as np

from stream.demo.plan import DemoError
from stream.demo.receiver import Sample
from stream.demo.review import decode_picture
from stream.overlay import draw_overlay, draw_status
from stream.view.window import own_x11_events

TITLE = "sam2-stream demo"
SIZE = (960, 720)
ESCAPE = 27
MAX_LAG_NS = 150_000_000


def wants_window(window: bool | None) -> bool:
    """Whether to show one: as asked for, else where there is a display."""
    has_display = sys.platform == "darwin" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    if window and not has_display:
        raise DemoError("--window: there is no display (DISPLAY is not set), expected one, or --no-window")
    return has_display if window is None else window


class Window:
    """A context manager."""

    def __enter__(self) -> Self:
        own_x11_events()
        try:
            cv2.namedWindow(TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
        except cv2.error as error:
            raise DemoError("this build of OpenCV has no windows, expected --no-window") from error
        cv2.resizeWindow(TITLE, *SIZE)
        cv2.imshow(TITLE, draw_status(np.zeros((480, 640, 3), np.uint8), "the daemon is starting"))
        cv2.waitKey(1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        cv2.destroyAllWindows()

    def show(self, sample: Sample) -> bool:
        """Show it unless newer ones wait already; whether the window was closed (q, Esc, or its button)."""
        masks = sample.masks
        is_new = time.monotonic_ns() - masks.published_ns < MAX_LAG_NS
        if is_new and (image_hwc := decode_picture(sample)) is not None:
            latency_ms = (masks.published_ns - masks.arrival_ns) / 1e6
            status = f"picture {masks.seq}   {latency_ms:.0f} ms from arrival to published"
            cv2.imshow(TITLE, draw_overlay(image_hwc, masks.masks(), status=status))
        key = cv2.waitKey(1) & 0xFF
        return key in (ord("q"), ESCAPE) or cv2.getWindowProperty(TITLE, cv2.WND_PROP_VISIBLE) < 1
