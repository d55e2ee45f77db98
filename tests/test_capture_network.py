"""Streams over HTTP, HLS and TLS from small servers: what FFmpeg may open, whom it believes, and what is never said."""

from __future__ import annotations

import base64
import dataclasses
import functools
import http.server
import itertools
import socket
import ssl
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import av
import pytest

from stream.capture import BackOff, SourceError, check_source, open_source
from stream.capture.access import PROTOCOLS, protocol_options, url_with_login
from stream.capture.ffmpeg_log import without_addresses
from stream.capture.picture import SourceRefused
from stream.config import CameraConfig
from stream.frame import CameraCondition
from tests.capture_rig import capture
from tests.clips import numbered_picture, write_video
from tests.rtsp import APT_PACKAGES, RtspServer

NUM = 90
PASSWORD = "p/a?s#s@w%o:rd&="
RTSP_WORDS = ("/a?s", "%2Fa%3F", base64.b64encode(f"viewer:{PASSWORD}".encode()).decode()[:16], PASSWORD)


def quick() -> BackOff:
    return BackOff(((1000, 0.1),), last_s=0.1)


class Folder(http.server.SimpleHTTPRequestHandler):
    """Files of a folder, for whoever knows the password; remembers what was asked for."""

    protocol_version = "HTTP/1.1"
    asked: ClassVar[list[str]]
    login = ""

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.login and self.headers["Authorization"] != f"Basic {base64.b64encode(self.login.encode()).decode()}":
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="cameras"')
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            super().do_GET()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@contextmanager
def web(folder: Path, certificate: Path | None = None, login: str = "") -> Iterator[tuple[str, list[str]]]:
    """A server's address and what it was asked for."""
    asked: list[str] = []
    kind = type("Served", (Folder,), {"asked": asked, "login": login})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(kind, directory=str(folder))) as server:
        server.handle_error = lambda request, client_address: None  # type: ignore[method-assign]
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield f"{'https' if certificate else 'http'}://127.0.0.1:{server.server_port}", asked
        server.shutdown()
        thread.join(10)


def make_certificate(folder: Path, host: str) -> Path:
    path = folder / f"{host}.pem"
    names = f"subjectAltName={'IP' if host[0].isdigit() else 'DNS'}:{host}"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={host}"]
    subprocess.run(
        [*command, "-addext", names, "-keyout", f"{path}.key", "-out", str(path)], check=True, capture_output=True
    )
    path.with_suffix(".both").write_text(Path(f"{path}.key").read_text() + path.read_text())
    return path


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A camera's own: `.pem` for whoever trusts it, and with its secret key in `.both`."""
    return make_certificate(tmp_path_factory.mktemp("tls"), "127.0.0.1")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seconds of numbered pictures as HLS."""
    folder = tmp_path_factory.mktemp("site")
    options = {"hls_time": "1", "hls_list_size": "0", "hls_segment_filename": str(folder / "part%d.ts")}
    with av.open(str(folder / "live.m3u8"), "w", format="hls", options=options) as container:
        stream = container.add_stream("libx264", rate=30, options={"g": "30", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        for number in range(NUM):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(numbered_picture(number), "bgr24")))
        container.mux(stream.encode())
    return folder


@pytest.fixture
def secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "secrets"
    folder.mkdir()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    return folder


def first_failure(source: str, **settings: object) -> str:
    """Why the first try gave nothing."""
    with capture(source, backoff=quick(), **settings) as rig:
        rig.until(lambda: rig.thread.num_reconnects >= 1 or rig.thread.error is not None)
        assert rig.thread.num_seen == 0
        return next(state.reason for state in rig.states.states if state.reason != "opening")


def test_hls_plays_at_the_rate_of_its_pictures(site: Path) -> None:
    with web(site) as (address, _), capture(f"{address}/live.m3u8", backoff=quick()) as rig:
        seen = rig.read(40)
        assert rig.thread.codec.startswith("h264")
    steps = [
        (b.stamp.arrival_ns - a.stamp.arrival_ns) / (b.stamp.seq - a.stamp.seq) for a, b in itertools.pairwise(seen)
    ]
    assert sorted(steps)[len(steps) // 2] == pytest.approx(33.3e6, abs=12e6)
    assert all(item.number == item.stamp.seq % NUM for item in seen)


def test_hls_that_ends_is_opened_again(site: Path) -> None:
    with web(site) as (address, asked), capture(f"{address}/live.m3u8", pace="offline", backoff=quick()) as rig:
        numbers = [item.number for item in rig.read(NUM + 10, seconds=60)]
        assert rig.thread.num_reconnects == 1
    assert numbers == [*range(NUM), *range(10)] and asked.count("/live.m3u8") >= 2


def test_a_worker_that_takes_its_time_is_no_stall(site: Path) -> None:
    with (
        web(site) as (address, _),
        capture(f"{address}/part0.ts", pace="offline", backoff=quick(), stall_s=0.2) as rig,
    ):
        assert [item.number for item in rig.read(6, pause_s=0.5)] == [*range(6)]
        assert rig.thread.num_reconnects == 0


def test_hls_that_stops_growing_is_a_stall_after_longer_than_a_segment(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream.capture.streams.HLS_STALL_S", 1.5)
    for part in site.iterdir():
        (tmp_path / part.name).write_bytes(part.read_bytes().replace(b"#EXT-X-ENDLIST", b""))
    with web(tmp_path) as (address, asked), capture(f"{address}/live.m3u8", backoff=quick(), stall_s=0.1) as rig:
        assert rig.read(10)[-1].number is not None
        assert rig.thread.num_reconnects == 0, "stall_s is for cameras, not for segments"
        rig.until(lambda: rig.thread.num_reconnects == 1)
        assert asked.count("/live.m3u8") >= 2 and rig.thread.num_seen >= NUM - 1
    assert any(state.reason.endswith("no answer within 1.5 s") for state in rig.states.states)


def playlist(*parts: str) -> str:
    lines = "".join(f"#EXTINF:1,\n{part}\n" for part in parts)
    return f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n{lines}#EXT-X-ENDLIST\n"


def test_a_hostile_playlist_reads_no_file_and_reaches_no_other_scheme(site: Path, tmp_path: Path) -> None:
    for part in site.glob("part*.ts"):
        (tmp_path / part.name).write_bytes(part.read_bytes())
    with web(tmp_path) as (address, asked), socket.create_server(("127.0.0.1", 0)) as trap:
        port = trap.getsockname()[1]
        key = f'#EXT-X-KEY:METHOD=AES-128,URI="file://{tmp_path}/k"'
        hostile = {
            "passwd": playlist("file:///etc/passwd"),
            "path": playlist("/etc/passwd"),
            "file": playlist(f"file://{tmp_path}/part0.ts"),
            "concat": playlist(f"concat:{tmp_path}/part0.ts"),
            "crypto": playlist(f"crypto+file://{tmp_path}/part0.ts"),
            "data": playlist("data:video/mp2t;base64,R0BA"),
            "rtsp": playlist(f"rtsp://127.0.0.1:{port}/cam.ts"),
            "tcp": playlist(f"tcp://127.0.0.1:{port}/part0.ts"),
            "key": playlist("part0.ts").replace("#EXTINF", f"{key}\n#EXTINF"),
            "master": f"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nfile://{tmp_path}/good.m3u8\n",
        }
        (tmp_path / "good.m3u8").write_text(playlist("part0.ts"))
        (tmp_path / "k").write_bytes(bytes(16))
        for name, text in hostile.items():
            (tmp_path / f"{name}.m3u8").write_text(text)
            said = first_failure(f"{address}/{name}.m3u8")
            assert "root:" not in said and "/etc" not in said, name
        trap.setblocking(False)
        with pytest.raises(BlockingIOError):
            trap.accept()
        assert asked.count("/part0.ts") <= 1 and "/good.m3u8" not in asked, "only the one with a wrong key"
        with capture(f"{address}/good.m3u8", pace="offline", backoff=quick()) as rig:
            assert len(rig.read(10)) == 10, "and an honest one plays"


def test_ffmpeg_gets_only_the_protocols_of_the_scheme() -> None:
    for scheme, protocols in PROTOCOLS.items():
        options = protocol_options(CameraConfig("cam", f"{scheme}://camera/1"), scheme)
        assert options["protocol_whitelist"] == protocols and "file" not in protocols
    udp = protocol_options(CameraConfig("cam", "rtsp://camera/1", rtsp_transport="udp"), "rtsp")
    assert udp["protocol_whitelist"] == "tcp,udp,rtp"


def test_a_redirection_to_another_scheme_is_told_and_not_followed(site: Path, certificate: Path) -> None:
    class Elsewhere(Folder):
        def do_GET(self) -> None:
            self.send_response(302)
            self.send_header("Location", self.login)
            self.send_header("Content-Length", "0")
            self.end_headers()

    with socket.create_server(("127.0.0.1", 0)) as trap:
        target = f"https://127.0.0.1:{trap.getsockname()[1]}/part0.ts"
        kind = type("Served", (Elsewhere,), {"login": target})
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind) as server:
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
            said = first_failure(f"http://127.0.0.1:{server.server_port}/part0.ts")
            server.shutdown()
        assert "it leads to another protocol, which is not followed" in said
        trap.setblocking(False)
        with pytest.raises(BlockingIOError):
            trap.accept()


def test_a_playlist_on_disk_leads_to_no_network(site: Path, tmp_path: Path) -> None:
    with web(site) as (address, asked):
        (tmp_path / "local.m3u8").write_text(playlist(f"{address}/part0.ts"))
        with capture(str(tmp_path / "local.m3u8")) as rig:
            assert rig.thread.finished.wait(10) and rig.thread.num_seen == 0
    assert not asked


def test_cameras_added_over_the_wire_have_only_the_schemes_that_are_allowed(tmp_path: Path) -> None:
    movie = write_video(tmp_path / "clip.mp4", 2)
    for source in (str(movie), "0", "testsrc://", "push://a", "http://camera/1", str(tmp_path)):
        with pytest.raises(SourceError, match="expected one that begins with rtsp:// or https://"):
            open_source(CameraConfig("cam", source), allowed=("rtsp", "https"))
    open_source(CameraConfig("cam", "RTSP://camera/1"), allowed=("rtsp", "https"))
    with pytest.raises(SourceError, match="no scheme is allowed"):
        open_source(CameraConfig("cam", "rtsp://camera/1"), allowed=())


def test_https_is_believed_only_with_a_certificate_that_is_trusted(
    site: Path, certificate: Path, secrets: Path, tmp_path: Path
) -> None:
    with web(site, certificate.with_suffix(".both")) as (address, _):
        assert first_failure(f"{address}/live.m3u8").endswith("its certificate is not trusted (TLS)")
        (secrets / "door.pem").write_bytes(certificate.read_bytes())
        (secrets / "door").write_text("viewer:any\n")
        for name in ("live.m3u8", "part0.ts"):
            with capture(f"{address}/{name}", credential="door", backoff=quick()) as rig:
                assert len(rig.read(5)) == 5
    other = make_certificate(tmp_path, "elsewhere")
    (secrets / "door.pem").write_bytes(other.read_bytes())
    with web(site, other.with_suffix(".both")) as (address, _):
        said = first_failure(f"{address}/part0.ts", credential="door")
        assert said.endswith("its certificate is for another host name (TLS)")
    with web(site) as (address, _):
        said = first_failure(f"{address.replace('http', 'https')}/part0.ts")
        assert said.endswith("it does not speak TLS as expected")


def test_a_wrong_password_is_told_and_the_right_one_recovers(
    site: Path, secrets: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with web(site, login=f"viewer:{PASSWORD}") as (address, _):
        (secrets / "door").write_text("viewer:wrong\n")
        with capture(f"{address}/live.m3u8", credential="door", backoff=quick()) as rig:
            rig.until(lambda: rig.thread.num_reconnects >= 2)
            assert rig.states.last.reason.endswith("the user name or password is wrong (401)")
            (secrets / "door").unlink()
            rig.until(lambda: "no such file" in rig.states.last.reason)
            (secrets / "door").write_text("no colon")
            rig.until(lambda: "expected one line user:password" in rig.states.last.reason)
            (secrets / "door").write_text(f"viewer:{PASSWORD}\n")
            rig.wait(CameraCondition.ONLINE)
        assert not [word for word in RTSP_WORDS if word in caplog.text + str(rig.states.states)]


def test_a_credential_that_can_never_work_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    good = CameraConfig("cam", "rtsp://camera/1", credential="door")
    check_source(good)
    for credential in ("../door", "a/b", ".x"):
        with pytest.raises(SourceError, match="expected the name of a file"):
            check_source(dataclasses.replace(good, credential=credential))
    with pytest.raises(SourceError, match="not both"):
        check_source(dataclasses.replace(good, source="rtsp://u:p@camera/1"))
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(SourceRefused, match="CREDENTIALS_DIRECTORY is not set"):
        url_with_login(good)


def test_a_name_that_nobody_knows_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "its host name is not known" in first_failure("rtsp://user:secret@camera.invalid/1")


@pytest.fixture
def serve(needs_apt: Callable[..., None], site: Path) -> Iterator[Callable[..., RtspServer]]:
    needs_apt(*APT_PACKAGES)
    servers: list[RtspServer] = []

    def start(**options: object) -> RtspServer:
        servers.append(RtspServer(site / "part0.ts", loop=True, **options))  # type: ignore[arg-type]
        servers[-1].start()
        return servers[-1]

    yield start
    for server in servers:
        server.kill()


def test_rtsps_is_checked_where_the_certificate_is_known(
    serve: Callable[..., RtspServer], certificate: Path, secrets: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve(user="viewer", password=PASSWORD, certificate=certificate.with_suffix(".both"))
    bare = server.bare_url.replace("rtsp://", "rtsps://")
    (secrets / "door").write_text(f"viewer:{PASSWORD}")
    with capture(bare, credential="door", backoff=quick()) as rig:
        assert len(rig.read(5)) == 5, "a camera's own certificate is accepted where none is known"
        assert caplog.text.count("certificate is not checked, expected it in $CREDENTIALS_DIRECTORY/door.pem") == 1
    (secrets / "door.pem").write_bytes(certificate.read_bytes())
    with capture(bare, credential="door", backoff=quick()) as rig:
        assert len(rig.read(5)) == 5
    (secrets / "door.pem").write_bytes(make_certificate(tmp_path, "127.0.0.1").read_bytes())
    assert first_failure(bare, credential="door").endswith("its certificate is not trusted (TLS)")
    assert first_failure(bare).endswith("the user name or password is wrong (401)")
    with pytest.raises(SourceError, match="expected rtsp_transport = 'tcp'"):
        check_source(CameraConfig("cam", bare, rtsp_transport="udp"))
    assert not [word for word in RTSP_WORDS if word in caplog.text]


def test_what_ffmpeg_says_comes_out_without_addresses() -> None:
    said = without_addresses(f"Failed to open segment of rtsp://u:{PASSWORD} x@host/a?b#c: no such")
    assert said == "Failed to open segment of rtsp://***"


SCRIPT = """
    import logging, sys, threading
    logging.basicConfig(level=1, stream=sys.stderr)
    import av.logging
    from stream.capture import BackOff
    from tests.capture_rig import Rig
    for source in sys.argv[1:]:
        rig = Rig(source, backoff=BackOff(((9, 0.05),), last_s=0.05))
        rig.thread.start()
        rig.until(lambda: rig.thread.num_reconnects >= 1 or rig.thread.num_seen > 3)
        rig.stop()
        print(rig.states.states, file=sys.stderr)
"""


def test_no_log_line_of_ours_or_ffmpegs_shows_a_password(serve: Callable[..., RtspServer], site: Path) -> None:
    server = serve(user="viewer", password=PASSWORD)
    login = f"viewer:{PASSWORD}@"
    with web(site, login="viewer:other") as (address, _):
        sources = [
            server.bare_url.replace("rtsp://", f"rtsp://{login}"),
            server.bare_url.replace("rtsp://", f"rtsp://{login}") + "/nothing",
            f"rtsp://{login}127.0.0.1:1/cam",
            f"rtsp://{login}camera.invalid/cam",
            address.replace("http://", f"http://{login}") + "/live.m3u8",
            address.replace("http://", f"https://{login}") + "/live.m3u8",
        ]
        command = [sys.executable, "-c", textwrap.dedent(SCRIPT), *sources]
        result = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    said = result.stdout + result.stderr
    assert "DEBUG:stream.capture.ffmpeg_log" in said and said.count("next try in") >= 5
    for word in RTSP_WORDS:
        assert word not in said.replace(repr(sources), ""), word
