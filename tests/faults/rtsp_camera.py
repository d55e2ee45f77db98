"""Cameras that misbehave on command: one RTSP server, one endless scene. Run by Debian's own python3.

    /usr/bin/python3 tests/faults/rtsp_camera.py scene.i420 --origin T --camera '{"path": "/a", "codec": "h264"}' ...

`scene.i420` holds raw pictures of WIDTH x HEIGHT, shown forth and back without end. What a camera shows is a function
of time alone: at `origin + number / RATE` (CLOCK_MONOTONIC) it exposes picture `number`, whatever was streamed before,
by this process or the one before it; the number is burnt in as `engines.synthetic` does it (which needs numpy, so the
strip is drawn here once more). A camera with fewer pictures a second than RATE skips numbers.

It prints its port once it listens, then obeys one JSON object per line on standard input, each answered by a line, and
ends when standard input is closed:

    {"path": "/a", "frozen": true}         the same picture again and again
    {"path": "/a", "size": [640, 480]}     another resolution, in the running stream
    {"path": "/a", "fps": 5}               another frame rate, in the running stream
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import mmap
import sys
import time

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

RATE = 10  # numbers a second
WIDTH, HEIGHT = 320, 240
STRIP = HEIGHT // 20
NUM_CELLS = 28

X264 = "x264enc speed-preset=ultrafast sliced-threads=false threads=1 bitrate={kbps} key-int-max={gop}"
ENCODERS = {
    "h264": X264 + " tune=zerolatency ! h264parse ! rtph264pay config-interval=-1",
    "h264-b": X264 + " bframes=2 b-adapt=false rc-lookahead=0 sync-lookahead=0 ! video/x-h264,profile=main"
    " ! h264parse ! rtph264pay config-interval=-1",
    "h265": "x265enc speed-preset=ultrafast tune=zerolatency bitrate={kbps} key-int-max={gop}"
    " ! h265parse ! rtph265pay config-interval=-1",
    "mjpeg": "jpegenc quality=85 ! rtpjpegpay",
    "vp8": "vp8enc deadline=1 target-bitrate={kbps}000 keyframe-max-dist={gop} ! rtpvp8pay",
}
PIPELINE = (
    "( appsrc name=feed format=time is-live=true do-timestamp=true max-bytes=2000000"
    " caps=video/x-raw,format=I420,width=320,height=240,framerate=10/1"
    " ! videoscale ! capsfilter name=size ! {encoder} mtu=1200 name=pay0 )"
)


def strip_row(number: int) -> bytes:
    """One row of luma with the number, as `engines.synthetic.draw_counter` draws it."""
    number %= 65536
    register = (number ^ 0x5AA5) << 8
    for bit in range(23, 7, -1):
        if register >> bit & 1:
            register ^= 0x107 << (bit - 8)
    word = number << 8 | register
    cells = [1, 0, *(word >> place & 1 for place in range(23, -1, -1)), 0, 1]
    edges = [round(WIDTH * cell / NUM_CELLS) for cell in range(NUM_CELLS + 1)]
    widths = [right - left for left, right in itertools.pairwise(edges)]
    return b"".join((b"\xeb" if bit else b"\x10") * width for bit, width in zip(cells, widths, strict=True))


class Scene:
    """Raw I420 pictures in a file, forth and back."""

    def __init__(self, path: str) -> None:
        with open(path, "rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._size = WIDTH * HEIGHT * 3 // 2
        self._num = len(self._map) // self._size

    def picture(self, number: int) -> bytes:
        index = number % (2 * self._num - 2)
        index = index if index < self._num else 2 * self._num - 2 - index
        raw = self._map[index * self._size : (index + 1) * self._size]
        luma, chroma = WIDTH * HEIGHT, WIDTH * HEIGHT // 4
        grey = b"\x80" * (STRIP // 2 * WIDTH // 2)
        planes = [strip_row(number) * STRIP, raw[WIDTH * STRIP : luma]]
        for start in (luma, luma + chroma):
            planes += [grey, raw[start + len(grey) : start + chroma]]
        return b"".join(planes)


class Camera(GstRtspServer.RTSPMediaFactory):
    """One programme, which all its clients share; it runs while somebody watches."""

    def __init__(self, scene: Scene, origin_s: float, *, settings: dict) -> None:
        super().__init__()
        self.scene, self.origin_s = scene, origin_s
        self.settings = {"codec": "h264", "fps": RATE, "gop": 20, "kbps": 1500, "offset": 0}
        self.settings |= {"size": [WIDTH, HEIGHT], "frozen": False, **settings}
        encoder = ENCODERS[self.settings["codec"]].format(**self.settings)
        self.set_launch(PIPELINE.format(encoder=encoder))
        self.set_shared(True)
        self.element = self.feed = None
        self.shown = 0
        self.connect("media-configure", self.configure)

    def configure(self, _factory, media) -> None:
        self.element = media.get_element()
        self.feed = self.element.get_by_name("feed")
        self.resize()
        number = math.ceil((time.monotonic() - self.origin_s) * RATE)
        media.connect("unprepared", self.on_unprepared, self.feed)
        self.plan(self.feed, number)

    def on_unprepared(self, _media, feed) -> None:
        if self.feed is feed:
            self.element = self.feed = None

    def plan(self, feed, number: int) -> None:
        delay_s = self.origin_s + number / RATE - time.monotonic()
        GLib.timeout_add(max(0, round(delay_s * 1000)), self.expose, feed, number)

    def expose(self, feed, number: int) -> bool:
        """Push the picture of this number, and plan the next one that is still to come."""
        if self.feed is not feed:
            return False
        if not self.settings["frozen"]:
            self.shown = number + self.settings["offset"]
        feed.emit("push-buffer", Gst.Buffer.new_wrapped(self.scene.picture(self.shown)))
        step = max(1, round(RATE / self.settings["fps"]))
        now = (time.monotonic() - self.origin_s) * RATE
        self.plan(feed, number + step * max(1, math.ceil((now - number) / step)))
        return False

    def resize(self) -> None:
        width, height = self.settings["size"]
        caps = Gst.Caps.from_string(f"video/x-raw,width={width},height={height}")
        self.element.get_by_name("size").set_property("caps", caps)

    def obey(self, settings: dict) -> None:
        self.settings |= settings
        if self.element is not None and "size" in settings:
            self.resize()


def protect(server, cameras: dict[str, Camera], *, user: str, password: str) -> None:
    """Basic authentication for one user."""
    auth = GstRtspServer.RTSPAuth()
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "viewer")
    auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
    server.set_auth(auth)
    role = "viewer, media.factory.access=(boolean)true, media.factory.construct=(boolean)true"
    for camera in cameras.values():
        camera.add_role_from_structure(Gst.Structure.from_string(role)[0])


def on_line(_fileno, condition, cameras: dict[str, Camera], loop) -> bool:
    if condition & GLib.IOCondition.IN:
        line = sys.stdin.readline()
        if line:
            settings = json.loads(line)
            cameras[settings.pop("path")].obey(settings)
            print("ok", flush=True)
            return True
    loop.quit()
    return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scene")
    parser.add_argument("--origin", type=float, required=True, help="CLOCK_MONOTONIC of picture 0, in seconds")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", default="0")
    parser.add_argument("--camera", action="append", required=True, help="a JSON object with its path and settings")
    parser.add_argument("--user")
    parser.add_argument("--password", default="")
    options = parser.parse_args()
    Gst.init(None)
    scene, server, loop, cameras = Scene(options.scene), GstRtspServer.RTSPServer(), GLib.MainLoop(), {}
    server.set_address(options.host)
    server.set_service(options.port)
    for text in options.camera:
        settings = json.loads(text)
        path = settings.pop("path")
        cameras[path] = Camera(scene, options.origin, settings=settings)
        server.get_mount_points().add_factory(path, cameras[path])
    if options.user:
        protect(server, cameras, user=options.user, password=options.password)
    if server.attach(None) == 0:
        sys.exit(f"rtsp_camera: cannot listen on {options.host}:{options.port}")
    events = GLib.IOCondition.IN | GLib.IOCondition.HUP
    GLib.unix_fd_add_full(GLib.PRIORITY_DEFAULT, sys.stdin.fileno(), events, on_line, cameras, loop)
    print(server.get_bound_port(), flush=True)
    loop.run()


if __name__ == "__main__":
    main()
