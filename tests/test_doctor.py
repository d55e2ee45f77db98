"""stream.doctor: what is wrong is found, told in one line without a secret, with a command that mends it."""

from __future__ import annotations

import json
import shlex
import socket
from collections.abc import Callable
from pathlib import Path

import av
import msgspec
import numpy as np
import pytest
import torch
from rtsp import APT_PACKAGES, RtspServer
from unit_rig import CONFIG, PROGRAM, UNIT

from stream.capture.probe import probe
from stream.cli import main
from stream.config import CameraConfig, Config
from stream.doctor import Finding, Verdict
from stream.doctor.cameras import cameras
from stream.doctor.machine import gpu, machine, shared_memory
from stream.doctor.sandbox import command_inside, nodes
from stream.doctor.setup import door, http, keys, state, weights
from stream.keys import KeyFolder
from stream.publish import Publisher


def write_stream(path: Path, *, num_b_frames: int, key_interval: int, num_frames: int = 90) -> None:
    """H.264 at 10 pictures a second, without scene cuts."""
    options = {"bf": str(num_b_frames), "g": str(key_interval), "keyint_min": str(key_interval), "sc_threshold": "0"}
    ramp = np.tile(np.arange(128, dtype=np.uint8)[None, :, None], (96, 1, 3))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options=options)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for number in range(num_frames):
            picture = np.ascontiguousarray(np.roll(ramp, 3 * number, axis=1))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "bgr24")))
        container.mux(stream.encode())


def look(source: str, *, limit_s: float = 5.0, **options: str) -> list[Finding]:
    return list(cameras([CameraConfig(name="door", source=source, **options)], limit_s=limit_s))  # type: ignore[arg-type]


def test_a_good_stream_is_described(tmp_path: Path) -> None:
    write_stream(tmp_path / "good.mp4", num_b_frames=0, key_interval=10)
    facts = probe(CameraConfig("door", f"{tmp_path}/good.mp4"), limit_s=5)
    assert (facts.width, facts.height, facts.has_b_frames) == (128, 96, False) and facts.codec.startswith("h264")
    assert facts.fps == pytest.approx(10, rel=0.1) and facts.key_interval_s == pytest.approx(1.0)
    assert [finding.verdict for finding in look(f"{tmp_path}/good.mp4")] == [Verdict.OK, Verdict.OK]


def test_b_frames_and_rare_key_frames_are_told(tmp_path: Path) -> None:
    write_stream(tmp_path / "slow.mp4", num_b_frames=2, key_interval=60)
    found = look(f"{tmp_path}/slow.mp4")
    assert [finding.verdict for finding in found] == [Verdict.OK, Verdict.NOTE, Verdict.NOTE]
    assert found[1].text.startswith("6 s to a key frame") and "B-frames" in found[2].text
    write_stream(tmp_path / "one.mp4", num_b_frames=0, key_interval=250)
    assert look(f"{tmp_path}/one.mp4")[1].text.startswith("no two key frames within 5 s")


def test_an_rtsp_camera_is_looked_at_and_a_wrong_password_told_without_it(
    tmp_path: Path, needs_apt: Callable[..., None]
) -> None:
    needs_apt(*APT_PACKAGES)
    write_stream(tmp_path / "clip.mp4", num_b_frames=0, key_interval=10)
    with RtspServer(tmp_path / "clip.mp4", loop=True, user="me", password="s3cr3t/?#@%", gop=10) as server:
        found = look(server.url, limit_s=20)
        assert [finding.verdict for finding in found] == [Verdict.OK, Verdict.OK], found
        assert "h264" in found[0].text and "a key frame every 1 s" in found[1].text
        [wrong] = look(server.bare_url.replace("rtsp://", "rtsp://me:wr0ng%2F@"))
        assert wrong.verdict is Verdict.BROKEN and "401" in wrong.text
        assert "/etc/sam2-stream/credentials/door" in wrong.fixes[0]
        assert not any(secret in text for finding in (*found, wrong) for text in finding.lines()
                       for secret in ("s3cr3t", "wr0ng"))  # fmt: skip


def test_a_camera_that_nobody_answers_for_comes_with_commands_to_find_out_why(unused_tcp_port: int) -> None:
    [found] = look(f"rtsp://user:pa%2Fss@127.0.0.1:{unused_tcp_port}/x")
    assert found.verdict is Verdict.BROKEN and "connection refused" in found.text
    assert found.fixes == ("ping -c 3 127.0.0.1", f"nc -vz 127.0.0.1 {unused_tcp_port}")
    assert "pa" not in "".join(found.lines()).replace("expected", "").partition("rtsp://")[2].partition("@")[0]


@pytest.mark.parametrize("source", ["rtsp://u:p@ss@w0rd@127.0.0.1:9/x", "rtsp://u:w0rd@127.0.0.1:9/a@b"])
def test_where_a_password_ends_is_never_guessed(source: str) -> None:
    [found] = look(source)
    assert found.verdict is Verdict.BROKEN and found.fixes == () and "w0rd" not in "".join(found.lines())


def test_other_kinds_of_sources_are_looked_at_too(tmp_path: Path) -> None:
    [generated] = look("testsrc://?width=64&height=64")
    assert generated.verdict is Verdict.OK and "64 x 64" in generated.text
    [pushed] = look("push://robot")
    assert pushed.verdict is Verdict.NOTE
    [webcam] = look("/dev/video97")
    assert webcam.verdict is Verdict.BROKEN and "v4l2-ctl --list-devices" in webcam.fixes
    assert [finding.verdict for finding in look(f"{tmp_path}/absent.mp4")] == [Verdict.BROKEN]


def test_the_machine_is_told_thing_by_thing() -> None:
    found = {finding.subject: finding for finding in machine(Config(cameras=(), device="cpu"))}
    assert found.keys() == {"python", "torch", "driver", "gpu", "decoder", "clock", "shared memory"}
    assert not any(finding.verdict is Verdict.BROKEN for finding in found.values()), "nothing is needed of a GPU"
    assert torch.__version__ in found["torch"].text and "h264" in found["decoder"].text


def test_a_gpu_that_is_wanted_and_missing_is_broken() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    found = {finding.subject: finding for finding in gpu(Config(cameras=()))}
    assert found["gpu"].verdict is found["driver"].verdict is Verdict.BROKEN
    assert "nvidia-smi" in found["gpu"].fixes
    allowed = {finding.subject: finding for finding in gpu(Config(cameras=(), allow_cpu=True))}
    assert allowed["gpu"].verdict is allowed["driver"].verdict is Verdict.NOTE


def test_shared_memory_that_is_not_there_is_told(tmp_path: Path) -> None:
    assert shared_memory(tmp_path / "absent").verdict is Verdict.NOTE
    assert str(tmp_path) in shared_memory(tmp_path).text


def test_weights_that_were_not_pulled_come_with_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAM2_STREAM_CACHE", str(tmp_path))
    assert weights(Config(cameras=())).verdict is Verdict.OK
    missing = weights(Config(cameras=(), model="sam2.1-hiera-tiny"))
    assert missing.verdict is Verdict.BROKEN and missing.fixes == ("sam2-stream weights pull sam2.1-hiera-tiny",)


def test_missing_keys_come_with_the_command_and_present_ones_with_their_roles(tmp_path: Path) -> None:
    missing = keys(Config(cameras=(), keys=tmp_path / "keys"))
    assert missing.verdict is Verdict.BROKEN and missing.fixes[0].startswith("sam2-stream keys new NAME --role view")
    KeyFolder(tmp_path / "keys").new("robot", "control")
    present = keys(Config(cameras=(), keys=tmp_path / "keys"))
    assert present.verdict is Verdict.OK and "robot (control)" in present.text
    (tmp_path / "keys" / "server.key").chmod(0o644)
    wide = keys(Config(cameras=(), keys=tmp_path / "keys"))
    assert wide.verdict is Verdict.BROKEN and wide.fixes[0].startswith("chmod 600 ")


def nobody(endpoint: str) -> bool:
    return False


def test_a_port_is_free_or_taken_or_not_of_this_machine(tmp_path: Path, unused_tcp_port: int) -> None:
    free = door("publishing", f"tcp://127.0.0.1:{unused_tcp_port}", has_keys=False, is_ours=nobody)
    assert free.verdict is Verdict.OK
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        taken = door("publishing", f"tcp://127.0.0.1:{port}", has_keys=False, is_ours=nobody)
        assert taken.verdict is Verdict.BROKEN and taken.fixes == (f"sudo ss -ltnp 'sport = :{port}'",)
        assert http(f"127.0.0.1:{port}").verdict is Verdict.NOTE
    assert http(f"127.0.0.1:{unused_tcp_port}").verdict is Verdict.OK
    beyond = door("publishing", "tcp://0.0.0.0:5560", has_keys=False, is_ours=nobody)
    assert beyond.verdict is Verdict.BROKEN and "sam2-stream keys new" in beyond.text
    foreign = door("publishing", "tcp://203.0.113.1:5560", has_keys=True, is_ours=nobody)
    assert foreign.verdict is Verdict.BROKEN and "no address of this machine" in foreign.text
    (tmp_path / "file").touch()
    file = door("publishing", f"ipc://{tmp_path}/file", has_keys=False, is_ours=nobody)
    assert file.verdict is Verdict.BROKEN and file.fixes == (f"sudo fuser -v {tmp_path}/file",)
    assert door("publishing", f"ipc://{tmp_path}/new", has_keys=False, is_ours=nobody).verdict is Verdict.OK
    absent = door("publishing", f"ipc://{tmp_path}/no/socket", has_keys=False, is_ours=nobody)
    assert absent.verdict is Verdict.BROKEN and "expected a directory" in absent.text


def test_the_port_of_a_running_daemon_is_no_fault(tmp_path: Path) -> None:
    from stream.doctor.setup import _is_publisher

    publisher = Publisher((f"ipc://{tmp_path}/d",))
    publisher.start()
    publisher.wait_ready()
    found = door("publishing", f"ipc://{tmp_path}/d", has_keys=False, is_ours=_is_publisher)
    publisher.stop()
    publisher.join(10)
    assert found.verdict is Verdict.NOTE and "a daemon runs there" in found.text


def test_a_folder_for_objects_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    assert state(None).verdict is Verdict.NOTE
    assert state(tmp_path / "to" / "come").verdict is Verdict.OK
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    assert str(tmp_path) in state(None).text


def test_a_webcam_that_is_configured_and_missing_is_broken() -> None:
    config = Config(
        cameras=(CameraConfig("a", "97"), CameraConfig("b", "/dev/null?fps=30"), CameraConfig("c", "x.mp4"))
    )
    broken = [finding for finding in nodes(config) if finding.verdict is Verdict.BROKEN]
    assert [finding.text for finding in broken] == ["/dev/video97: there is no such device"]


def test_the_command_that_looks_from_inside_takes_the_sandbox_and_leaves_the_service_alone() -> None:
    unit = UNIT.read_text(encoding="utf-8")
    words = shlex.split(command_inside(unit, "/a b.toml"))
    assert words[:2] == ["sudo", "systemd-run"] and words[-4:] == ["--", PROGRAM, "doctor", "/a b.toml"]
    assert command_inside(unit, "").endswith(f" {PROGRAM} doctor {CONFIG}")
    taken = [word.removeprefix("--property=") for word in words if word.startswith("--property=")]
    assert {"User=sam2-stream", "DevicePolicy=closed", "DeviceAllow=char-nvidia* rw", "ProtectSystem=strict"} <= set(
        taken
    )
    assert any(line.startswith("LoadCredential=camera:") for line in taken)
    assert not any(line.startswith(("Exec", "Type", "RuntimeDirectory", "Restart", "Watchdog")) for line in taken)


def test_the_command_ends_with_one_where_something_is_broken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = tmp_path / "good.toml"
    settings = f'device = "cpu"\nbind = ["ipc://{tmp_path}/d"]\n'
    good.write_text(f'{settings}[[camera]]\nname = "a"\nsource = "testsrc://"\n', encoding="utf-8")
    assert main(["doctor", str(good), "--json"]) == 0
    findings = [msgspec.convert(json.loads(line), Finding) for line in capsys.readouterr().out.splitlines()]
    assert {"configuration", "gpu", "publishing", "commands", "camera a"} <= {finding.subject for finding in findings}

    bad = tmp_path / "bad.toml"
    bad.write_text(good.read_text(encoding="utf-8") + "oops = 1\n", encoding="utf-8")
    assert main(["doctor", str(bad)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["broken", "configuration"] and "oops" in lines[0]
    assert any(line.split()[:2] == ["ok", "decoder"] for line in lines), "it goes on with the machine"
