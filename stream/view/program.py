"""`run_view`: the loop that receives, shows and saves.

Owns: the subscriber, the window and the video file while it runs. Runs in the main thread: windows want it. Never:
shows a mask on another picture than its own, or holds the daemon up; when it is too slow, a window skips some pictures.

A video gets every picture with its masks, at the time when it arrived at the daemon; a window shows the newest, of one
camera or of all. It ends at `stopping`, at the limits of its options, when its window is closed, and, without a window
or with a video, when the daemon says that the camera has ended.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from stream.client import ClientKeys, FrameMessage, Info, MasksMessage, Message, StateMessage, Subscriber, WireError
from stream.movie import MovieWriter
from stream.overlay import draw_overlay
from stream.view.choice import Choice
from stream.view.desk import Desk
from stream.view.reel import Reel
from stream.view.window import NoWindows, Window

TURN_S = 0.02
MAX_LAG_S = 0.1  # a window is served at least this often, however much is waiting
GRACE_S = 1.0  # after the end of a camera: its last masks may still be on their way
PATIENCE_S = 60.0  # without a window, how long to wait for the first picture
FIRST_SIZE = (640, 408)  # of the window, until the first picture


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
    keys: ClientKeys | None = None  # for a daemon on another machine


class View:
    """One run of the view. Every field is written by the thread that calls `run`."""

    def __init__(self, endpoint: str, options: ViewOptions, stopping: threading.Event) -> None:
        self.endpoint, self.options, self.stopping = endpoint, options, stopping
        self.num_shown = 0
        self._choice = Choice(options.camera, is_fixed=options.save is not None)
        self._reels: dict[str, Reel] = {}
        self._has_window = _wants_window(options)
        self._desk: Desk | None = None
        self._movie: MovieWriter | None = None
        self._subscriber: Subscriber | None = None
        self._wanted: tuple[str, ...] | None = None  # cameras that the subscriber asked for; None: all of them
        self._started_s = time.monotonic()
        self._first_s: float | None = None

    def run(self) -> int:
        """Until the end; the number of pictures shown or saved."""
        with ExitStack() as stack:
            if self.options.save is not None:
                self._movie = stack.enter_context(MovieWriter(self.options.save))
            if self._has_window:
                self._open_window(stack)
            stack.callback(self._close_subscriber)
            self._loop()
        if self.num_shown == 0 and self._movie is not None:
            self._movie.path.unlink(missing_ok=True)
            if not self.stopping.is_set():
                camera = self._choice.camera or "a camera"
                raise ViewError(f"no picture of {camera} from {self.endpoint} before it ended; nothing was saved")
        return self.num_shown

    def _open_window(self, stack: ExitStack) -> None:
        self._desk = Desk(self.endpoint, self._choice, keys=self.options.keys)
        stack.callback(self._desk.stop)  # after the window is gone: a command may still be waiting for its answer
        try:
            window = stack.enter_context(Window(f"sam2-stream {self.endpoint}", FIRST_SIZE))
        except NoWindows as error:
            raise ViewError("this build of OpenCV has no windows, expected --no-window with --save FILE") from error
        self._desk.start(window)

    def _loop(self) -> None:
        served_s = 0.0
        while not self._is_over():
            self._follow()
            message = self._receive()
            if message is not None:
                self._take(message)
            if self._movie is not None:
                self._save_picture(self._movie)
            now_s = time.monotonic()
            if self._desk is not None and (message is None or now_s - served_s > MAX_LAG_S):
                served_s = now_s
                self._serve(self._desk)

    def _follow(self) -> None:
        """Subscribe to what is shown."""
        camera = self._choice.camera
        wanted = None if self._choice.is_grid else (camera,) if camera is not None else ()
        if self._subscriber is not None and wanted == self._wanted:
            return
        self._close_subscriber()
        if self._wanted is not None:  # pictures of cameras that were not followed are old
            self._reels = {name: reel for name, reel in self._reels.items() if name in self._wanted}
        self._wanted = wanted
        self._subscriber = Subscriber(
            self.endpoint, wanted, newest_only=False, frames=True, timeout_s=TURN_S, keys=self.options.keys
        )

    def _close_subscriber(self) -> None:
        if self._subscriber is not None:
            self._subscriber.close()
        self._subscriber = None

    def _receive(self) -> Message | None:
        """The next message; None when there is none for the moment, or a broken one."""
        assert self._subscriber is not None, "somebody is subscribed"
        try:
            return self._subscriber.receive().message
        except (TimeoutError, WireError):
            return None

    def _take(self, message: Message) -> None:
        if isinstance(message, Info):
            said = self._choice.set_names([camera.name for camera in message.cameras])
            self._reels = {name: reel for name, reel in self._reels.items() if name in self._choice.kept}
            if self._desk is not None:
                self._desk.put_info(message, said)
        if isinstance(message, MasksMessage | FrameMessage | StateMessage):
            self._reel(message.camera).put(message, time.monotonic())
        if isinstance(message, MasksMessage) and self._desk is not None:
            self._desk.editor.note(message)

    def _reel(self, camera: str) -> Reel:
        return self._reels.setdefault(camera, Reel(camera))

    def _save_picture(self, movie: MovieWriter) -> None:
        """The newest picture of the one camera, into the video; and on the screen, if there is one."""
        reel = self._reels.get(self._choice.camera or "")
        if reel is None or not reel.advance() or reel.shown is None:
            return
        masks, image_hwc = reel.shown
        labels = {item.id: item.label for item in masks.objects}
        movie.put(draw_overlay(image_hwc, masks.masks(), labels=labels, status=reel.figures()), masks.arrival_ns)
        self._count(1)

    def _serve(self, desk: Desk) -> None:
        names = self._choice.names if self._choice.is_grid else [self._choice.camera]
        reels = [self._reel(name) for name in names if name is not None]
        num_new = desk.serve(reels)
        if self._movie is None:
            self._count(num_new)
        if desk.is_over:
            self.stopping.set()

    def _count(self, num_new: int) -> None:
        self.num_shown += num_new
        if num_new and self._first_s is None:
            self._first_s = time.monotonic()

    def _is_over(self) -> bool:
        now_s, options, first_s = time.monotonic(), self.options, self._first_s
        if first_s is None and not self._has_window and now_s - self._started_s > PATIENCE_S:
            expected = "expected a daemon that publishes there"
            raise ViewError(f"no picture from {self.endpoint} for {PATIENCE_S:.0f} s, {expected}")
        reel = self._reels.get(self._choice.camera or "")
        ended_s = reel.ended_s if reel is not None and (self._movie is not None or not self._has_window) else None
        return (
            self.stopping.is_set()
            or (options.num_pictures is not None and self.num_shown >= options.num_pictures)
            or (options.seconds is not None and first_s is not None and now_s - first_s >= options.seconds)
            or (ended_s is not None and now_s - ended_s > GRACE_S)
        )


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
