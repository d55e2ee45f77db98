"""The window: shows a picture of its own size, and hands out what mouse and keyboard did.

Owns: the OpenCV window. Runs in the view's main thread, which alone may touch it. Never: draws, or knows what a click
means.

The picture shown always has the size of the window's inside, so that OpenCV neither scales it nor adds bars, and what
the mouse points at is a pixel of that picture. Only OpenCV's own zoom by the mouse wheel cannot be turned off: it maps
back by itself, but a drag then also moves the picture.

On Linux OpenCV's wheel brings its own, older libX11-xcb beside the system's libX11. It writes "Qt owns the events" to
the place where libX11 before 1.7 looked for it; a newer libX11 never learns it, and at every flush may take events that
Qt waits for: a window that is never painted, or hears no key, about one start in a hundred. So the system's own
libX11-xcb is loaded first, for all to see.
"""

from __future__ import annotations

import ctypes
import enum
import logging
import sys
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import cv2
import numpy as np
from numpy.typing import NDArray

log = logging.getLogger(__name__)

Picture = NDArray[np.uint8]
MAX_EVENTS = 256  # of one turn; more are dropped
NO_KEY = -1
SHIFT = (0xFFE1, 0xFFE2)
KEY_NAMES = {
    8: "backspace", 0xFF08: "backspace", 9: "tab", 0xFF09: "tab", 10: "enter", 13: "enter", 0xFF0D: "enter",
    0xFF8D: "enter", 27: "escape", 0xFF1B: "escape", 127: "delete", 0xFFFF: "delete", 0xFF9F: "delete",
    3014656: "delete", 63272: "delete",
}  # fmt: skip


class Button(enum.Enum):
    """Of the mouse."""

    LEFT = "left"
    RIGHT = "right"
    MIDDLE = "middle"


class Act(enum.Enum):
    """What a button did, or that the mouse moved."""

    PRESS = "press"
    MOVE = "move"
    RELEASE = "release"


@dataclass(frozen=True, slots=True)
class Touch:
    """The mouse, in pixels of the picture shown; `button` is None for a move."""

    act: Act
    button: Button | None
    x: int
    y: int


TOUCHES: dict[int, tuple[Act, Button | None]] = {
    cv2.EVENT_MOUSEMOVE: (Act.MOVE, None),
    cv2.EVENT_LBUTTONDOWN: (Act.PRESS, Button.LEFT),
    cv2.EVENT_LBUTTONDBLCLK: (Act.PRESS, Button.LEFT),
    cv2.EVENT_LBUTTONUP: (Act.RELEASE, Button.LEFT),
    cv2.EVENT_RBUTTONDOWN: (Act.PRESS, Button.RIGHT),
    cv2.EVENT_RBUTTONDBLCLK: (Act.PRESS, Button.RIGHT),
    cv2.EVENT_RBUTTONUP: (Act.RELEASE, Button.RIGHT),
    cv2.EVENT_MBUTTONDOWN: (Act.PRESS, Button.MIDDLE),
    cv2.EVENT_MBUTTONDBLCLK: (Act.PRESS, Button.MIDDLE),
    cv2.EVENT_MBUTTONUP: (Act.RELEASE, Button.MIDDLE),
}


class NoWindows(Exception):
    """This build of OpenCV cannot open one."""


class Window:
    """A context manager. Every field is written by the thread that opened it."""

    def __init__(self, title: str, size: tuple[int, int]) -> None:
        self._title = title
        self._size = size  # (width, height)
        self.is_open = False
        self._events: list[Touch | str] = []
        self._is_shifted = False

    def __enter__(self) -> Self:
        own_x11_events()
        try:
            cv2.namedWindow(self._title, cv2.WINDOW_NORMAL | cv2.WINDOW_FREERATIO | cv2.WINDOW_GUI_NORMAL)
        except cv2.error as error:
            raise NoWindows from error
        self.is_open = True
        cv2.resizeWindow(self._title, *self._size)
        cv2.setMouseCallback(self._title, self._put_touch)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        cv2.destroyAllWindows()

    def resize(self, size: tuple[int, int]) -> None:
        """Make it (width, height) pixels; a person may pull it to another size at any time."""
        if self.is_open:
            cv2.resizeWindow(self._title, *size)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of its inside."""
        if self.is_open:
            _, _, width, height = cv2.getWindowImageRect(self._title)
            self._size = (width, height) if width > 0 and height > 0 else self._size
        return self._size

    def show(self, image_hwc: Picture) -> None:
        if self.is_open:  # else OpenCV would open another one
            cv2.imshow(self._title, image_hwc)

    def take(self) -> list[Touch | str]:
        """What mouse and keyboard did until the last `pump`, in order. A key is its character, or a name of
        `KEY_NAMES`.
        """
        events, self._events = self._events, []
        return events

    def pump(self) -> None:
        """Take what came since last time; the more often, the surer is its order: OpenCV keeps only the last key since
        then, and does not tell whether it came before or after the mouse. It is taken for earlier: N, then a click.
        """
        num_before = len(self._events)
        key = self._key(cv2.waitKeyEx(1))
        if key:
            self._events.insert(num_before, key)
        try:
            self.is_open = self.is_open and cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) >= 1
        except cv2.error:  # some builds do not know a window any more that was closed
            self.is_open = False

    def _key(self, code: int) -> str:
        """Qt tells letters without their case, but also the shift key before them."""
        if code in SHIFT:
            self._is_shifted = True
            return ""
        key = key_name(code)
        if key and self._is_shifted:
            self._is_shifted = False
            return key.upper() if len(key) == 1 else key
        return key

    def _put_touch(self, event: int, x: int, *y_flags_data: Any) -> None:
        if event in TOUCHES and len(self._events) < MAX_EVENTS:
            act, button = TOUCHES[event]
            self._events.append(Touch(act, button, x, int(y_flags_data[0])))


def key_name(code: int) -> str:
    """What OpenCV's number means; "" for no key, and for one that has no meaning here, such as Shift."""
    if code == NO_KEY:
        return ""
    if code in KEY_NAMES:
        return KEY_NAMES[code]
    if -96 <= code < NO_KEY:  # Qt: a letter of Latin-1 as a signed byte, without its case
        return chr(code + 256).lower()
    code &= 0xFFFF  # above: modifiers, in some builds
    if code in KEY_NAMES:
        return KEY_NAMES[code]
    return chr(code) if 32 <= code < 127 else ""


def own_x11_events() -> None:
    """See above. Nothing changes where there is no such library, and so no X11."""
    if not sys.platform.startswith("linux"):
        return
    try:
        ctypes.CDLL("libX11-xcb.so.1", mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        log.debug("the window may lose events: %s", error)
