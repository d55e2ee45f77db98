"""The live view: a camera's pictures with their masks, in a window, in a video file, or both.

Owns: the subscriber, the window and the video file while `run_view` runs. Runs in the main thread: windows want it.
Never: shows a mask on another picture than its own, or holds the daemon up; when it is too slow, a window skips some.

Pictures and masks are joined by (run, epoch, seq). A video gets every joined picture, at the time when it arrived at
the daemon; a window shows the newest. It ends at `stopping`, at the limits of its options, when its window is closed
(q, Esc), and when the daemon says that the camera has ended.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import OrderedDict, deque
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from stream.client import ClientKeys, FrameMessage, MasksMessage, Message, StateMessage, Subscriber, WireError
from stream.frame import CameraCondition
from stream.movie import MovieWriter
from stream.overlay import draw_overlay, draw_status

TURN_S = 0.02
MAX_LAG_S = 0.1  # a window is drawn at least this often, however much is waiting
NUM_HELD = 64  # pictures and masks that wait for their other half; beyond it the oldest is given up
GRACE_S = 1.0  # after the end of a camera: its last masks may still be on their way
PATIENCE_S = 60.0  # without a window, how long to wait for the first picture
RATE_WINDOW_S = 2.0
MAX_WINDOW_WIDTH, MAX_WINDOW_HEIGHT = 1280, 800  # at first; it may be pulled larger
END_OF_FILE = "end of file"  # the reason that the capture thread gives for a file that does not loop
Key = tuple[int, int, int]
Pair = tuple[MasksMessage, FrameMessage]


class ViewError(Exception):
    """The view cannot work; the text is one line for the user."""


@dataclass(frozen=True, slots=True)
class ViewOptions:
    """What the command line asked for; None = no limit, the first camera, and a window where there is a display."""

    camera: str | None = None
    save: Path | None = None
    seconds: float | None = None
    num_pictures: int | None = None
    window: bool | None = None
    keys: ClientKeys | None = None


class Joiner:
    """Brings pictures and masks of the same (run, epoch, seq) together, in whichever order they come.

    Holds at most `NUM_HELD` of each; beyond that the oldest is given up, and one older than the last pair at once.
    Written by the view's thread.
    """

    def __init__(self) -> None:
        self.num_given_up = 0
        self._held: dict[type[Message], OrderedDict[Key, MasksMessage | FrameMessage]] = {
            MasksMessage: OrderedDict(),
            FrameMessage: OrderedDict(),
        }

    def put(self, message: MasksMessage | FrameMessage) -> Pair | None:
        """The pair that this message completes."""
        key = (message.run, message.epoch, message.seq)
        other = self._held[FrameMessage if isinstance(message, MasksMessage) else MasksMessage].pop(key, None)
        if other is None:
            self._hold(key, message)
            return None
        if isinstance(message, MasksMessage) and isinstance(other, FrameMessage):
            return message, other
        assert isinstance(other, MasksMessage) and isinstance(message, FrameMessage), "a pair is one of each"
        return other, message

    def _hold(self, key: Key, message: MasksMessage | FrameMessage) -> None:
        held = self._held[type(message)]
        held[key] = message
        if len(held) > NUM_HELD:
            held.popitem(last=False)
            self.num_given_up += isinstance(message, FrameMessage)


class Rate:
    """Events a second over the last `RATE_WINDOW_S`. Written by the view's thread."""

    def __init__(self) -> None:
        self._times_ns: deque[int] = deque(maxlen=1000)

    def put(self, time_ns: int) -> float:
        self._times_ns.append(time_ns)
        while time_ns - self._times_ns[0] > RATE_WINDOW_S * 1e9:
            self._times_ns.popleft()
        span_ns = time_ns - self._times_ns[0]
        return (len(self._times_ns) - 1) / (span_ns / 1e9) if span_ns > 0 else 0.0


class View:
    """One run of the view. Every field is written by the thread that calls `run`."""

    def __init__(self, endpoint: str, options: ViewOptions, stopping: threading.Event) -> None:
        self.endpoint, self.options, self.stopping = endpoint, options, stopping
        self.num_shown = 0
        self._joiner, self._rate, self._fps = Joiner(), Rate(), 0.0
        self._condition = CameraCondition.ONLINE.value
        self._first_s: float | None = None
        self._ended_s: float | None = None
        self._window = _wants_window(options)
        self._movie: MovieWriter | None = None
        self._title = f"sam2-stream {endpoint}"

    def run(self) -> int:
        """Until the end; the number of pictures shown or saved."""
        with ExitStack() as stack:
            if self.options.save is not None:
                self._movie = stack.enter_context(MovieWriter(self.options.save))
            if self._window:
                self._open_window(stack)
            camera = self.options.camera or self._first_camera()
            if camera is not None:
                subscriber = Subscriber(
                    self.endpoint, [camera], newest_only=False, frames=True, timeout_s=TURN_S, keys=self.options.keys
                )
                self._loop(stack.enter_context(subscriber))
        if self.num_shown == 0 and self._movie is not None:
            self._movie.path.unlink(missing_ok=True)
            if not self.stopping.is_set():
                raise ViewError(f"no picture of {camera} from {self.endpoint} before it ended; nothing was saved")
        return self.num_shown

    def _first_camera(self) -> str | None:
        """The first of the daemon's cameras, as soon as it tells; None if the view ended before."""
        started_s = time.monotonic()
        with Subscriber(self.endpoint, [], timeout_s=TURN_S, keys=self.options.keys) as subscriber:
            while not self._is_over(started_s):
                self._receive(subscriber)
                if subscriber.info is not None and subscriber.info.cameras:
                    return subscriber.info.cameras[0].name
        return None

    def _loop(self, subscriber: Subscriber) -> None:
        started_s = shown_s = time.monotonic()
        newest: Pair | None = None
        while not self._is_over(started_s):
            message = self._receive(subscriber)
            newest = (self._take(message) if message is not None else None) or newest
            is_late = time.monotonic() - shown_s > MAX_LAG_S
            if newest is not None and (self._movie is not None or message is None or is_late):
                self._show(*newest)
                newest, shown_s = None, time.monotonic()
            elif message is None and self._window:
                self._serve_window()

    def _receive(self, subscriber: Subscriber) -> Message | None:
        """The next message; None when there is none for the moment, or a broken one."""
        try:
            return subscriber.receive().message
        except (TimeoutError, WireError):
            return None

    def _take(self, message: Message) -> Pair | None:
        if isinstance(message, StateMessage):
            self._condition = message.condition.value
            has_ended = message.condition is CameraCondition.OFFLINE and message.reason == END_OF_FILE
            self._ended_s = time.monotonic() if has_ended else None
        if isinstance(message, MasksMessage):
            self._fps = self._rate.put(message.published_ns)
        return self._joiner.put(message) if isinstance(message, MasksMessage | FrameMessage) else None

    def _show(self, masks: MasksMessage, frame: FrameMessage) -> None:
        image_hwc = cv2.imdecode(np.frombuffer(frame.data, np.uint8), cv2.IMREAD_COLOR)
        if image_hwc is None or image_hwc.shape[:2] != (masks.height, masks.width):
            return  # not a picture of this size: whatever it is, the masks do not belong on it
        latency_ms = (masks.published_ns - masks.arrival_ns) / 1e6
        figures = f"{masks.epoch}/{masks.seq}  {self._fps:.1f} fps  {latency_ms:.0f} ms"
        status = f"{masks.camera}  {figures}  {self._condition}"
        labels = {item.id: item.label for item in masks.objects}
        drawn = draw_overlay(np.asarray(image_hwc, np.uint8), masks.masks(), labels=labels, status=status)
        self._first_s = self._first_s or time.monotonic()
        self.num_shown += 1
        if self._movie is not None:
            self._movie.put(drawn, masks.arrival_ns)
        if self._window:
            if self.num_shown == 1:
                scale = min(1.0, MAX_WINDOW_WIDTH / masks.width, MAX_WINDOW_HEIGHT / masks.height)
                cv2.resizeWindow(self._title, round(masks.width * scale), round(masks.height * scale))
            cv2.imshow(self._title, drawn)
            self._serve_window()

    def _is_over(self, started_s: float) -> bool:
        now_s, options = time.monotonic(), self.options
        if self._first_s is None and not self._window and now_s - started_s > PATIENCE_S:
            expected = "expected a daemon that publishes there"
            raise ViewError(f"no picture from {self.endpoint} for {PATIENCE_S:.0f} s, {expected}")
        return (
            self.stopping.is_set()
            or (options.num_pictures is not None and self.num_shown >= options.num_pictures)
            or (options.seconds is not None and self._first_s is not None and now_s - self._first_s >= options.seconds)
            or (self._ended_s is not None and now_s - self._ended_s > GRACE_S)
        )

    def _open_window(self, stack: ExitStack) -> None:
        try:
            cv2.namedWindow(self._title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
        except cv2.error as error:
            raise ViewError("this build of OpenCV has no windows, expected --no-window with --save FILE") from error
        stack.callback(cv2.destroyAllWindows)
        waiting = np.zeros((270, 480, 3), np.uint8)
        cv2.imshow(self._title, draw_status(waiting, f"waiting for {self.endpoint}"))
        cv2.waitKey(1)

    def _serve_window(self) -> None:
        key = cv2.waitKey(1) & 0xFF
        try:
            is_open = cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) >= 1
        except cv2.error:  # some builds do not know a window any more that was closed
            is_open = False
        if key in (ord("q"), 27) or not is_open:
            self.stopping.set()


def _wants_window(options: ViewOptions) -> bool:
    has_display = sys.platform == "darwin" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    if options.window is None and (has_display or options.save is not None):
        return has_display
    if not has_display and options.window is not False:
        raise ViewError("there is no display (DISPLAY is not set), expected one, or --save FILE")
    if options.window is False and options.save is None:
        raise ViewError("neither a window nor a file to save to, expected --save FILE or --window")
    return bool(options.window)


def run_view(endpoint: str, options: ViewOptions, stopping: threading.Event | None = None) -> int:
    """Show and save until the end; the number of pictures. Raises ViewError, MovieError, or ValueError (endpoint)."""
    return View(endpoint, options, stopping or threading.Event()).run()
