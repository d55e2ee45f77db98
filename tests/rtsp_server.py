"""A real RTSP server for tests: any video file, encoded to H.264 and sent in real time. Run by Debian's own python3.

    /usr/bin/python3 tests/rtsp_server.py clip.mkv [--loop] [--port N] [--path /cam] [--user NAME --password WORD]

It prints its address on one line once it listens, and ends when it is killed or when its standard input is closed (so
that no server outlives a test run). `--loop` serves one endless programme that all clients share, as a camera does;
without it every client gets the file from its start, once. A lossless file (FFV1 in mkv) makes the pictures exact up to
this encoder.

Needs the apt packages in `tests/rtsp.py`'s APT_PACKAGES; nothing from the project's own environment.
"""

from __future__ import annotations

import argparse
import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gio, GLib, Gst, GstRtspServer  # noqa: E402

ENCODE = (
    "( appsrc name=feed format=time max-bytes=20000000 ! videoconvert ! video/x-raw,format=I420"
    " ! x264enc tune=zerolatency speed-preset=ultrafast sliced-threads=false bitrate={kbps} key-int-max={gop}"
    " ! h264parse ! rtph264pay name=pay0 pt=96 config-interval=-1 )"
)


class Programme(GstRtspServer.RTSPMediaFactory):
    """Decodes the file (again and again with `loop`) and feeds the pictures, in their own time, to the encoder."""

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__()
        self.options = options
        self.set_launch(ENCODE.format(kbps=options.kbps, gop=options.gop))
        self.set_shared(options.loop)
        self.connect("media-configure", self.configure)

    def configure(self, _factory, media) -> None:
        text = f'filesrc location="{self.options.file}" ! decodebin ! videoconvert ! video/x-raw,format=I420'
        decoder = Gst.parse_launch(text + " ! appsink name=pictures sync=false max-buffers=4 emit-signals=false")
        feed = media.get_element().get_by_name("feed")
        state = {"start_ns": 0, "end_ns": 0}
        feed.connect("need-data", self.push, decoder, decoder.get_by_name("pictures"), state)
        media.connect("unprepared", lambda _media: decoder.set_state(Gst.State.NULL))
        decoder.set_state(Gst.State.PLAYING)

    def push(self, feed, _size, decoder, pictures, state) -> None:
        sample = pictures.emit("pull-sample")
        if sample is None and self.options.loop:
            state["start_ns"] = state["end_ns"]
            decoder.seek_simple(Gst.Format.TIME, Gst.SeekFlags.FLUSH | Gst.SeekFlags.KEY_UNIT, 0)
            sample = pictures.emit("pull-sample")
        if sample is None:
            feed.emit("end-of-stream")
            return
        feed.set_caps(sample.get_caps())
        buffer = sample.get_buffer().copy()
        buffer.pts = buffer.dts = state["start_ns"] + sample.get_buffer().pts
        state["end_ns"] = buffer.pts + buffer.duration
        feed.emit("push-buffer", buffer)


def protect(server, factory, user: str, password: str, *, certificate: str | None) -> None:
    """Basic authentication for one user, over TLS if there is a certificate."""
    auth = GstRtspServer.RTSPAuth()
    if certificate:
        auth.set_tls_certificate(Gio.TlsCertificate.new_from_file(certificate))
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "viewer")
    auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
    server.set_auth(auth)
    role = "viewer, media.factory.access=(boolean)true, media.factory.construct=(boolean)true"
    factory.add_role_from_structure(Gst.Structure.from_string(role)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file")
    parser.add_argument("--loop", action="store_true")
    parser.add_argument("--port", default="0")
    parser.add_argument("--path", default="/cam")
    parser.add_argument("--kbps", type=int, default=4000)
    parser.add_argument("--gop", type=int, default=30, help="pictures from key frame to key frame")
    parser.add_argument("--user")
    parser.add_argument("--password", default="")
    parser.add_argument("--certificate", help="PEM with the secret key: speak TLS; needs --user")
    options = parser.parse_args()
    Gst.init(None)
    server, factory, loop = GstRtspServer.RTSPServer(), Programme(options), GLib.MainLoop()
    server.set_address("127.0.0.1")
    server.set_service(options.port)
    if options.user:
        protect(server, factory, options.user, options.password, certificate=options.certificate)
    server.get_mount_points().add_factory(options.path, factory)
    if server.attach(None) == 0:
        sys.exit(f"rtsp_server: cannot listen on port {options.port}")
    GLib.unix_fd_add_full(GLib.PRIORITY_DEFAULT, sys.stdin.fileno(), GLib.IOCondition.HUP, lambda *_: loop.quit(), None)
    print(f"rtsp://127.0.0.1:{server.get_bound_port()}{options.path}", flush=True)
    loop.run()


if __name__ == "__main__":
    main()
