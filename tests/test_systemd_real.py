"""The unit under a real systemd: PID 1 of its own namespaces and cgroup, with its own /etc, /run, /var and /srv.

Slow, and only where it disturbs nobody: as root, on a machine that systemd does not manage, such as a container.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from unit_rig import CONFIG, PROGRAM, ROOT, UNIT

from stream.client import Subscriber

pytestmark = pytest.mark.slow
CGROUPS = (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup"))
CAMERA = '[[camera]]\nname = "{}"\nsource = "testsrc://?width=320&height=240&fps=5&seed=1"\n'
DROP_IN = """[Service]
StandardOutput=append:{folder}/journal
StandardError=inherit
WatchdogSec=3
TimeoutAbortSec=1
"""
BOOT = """set -e
mount --make-rprivate /
mount -t proc proc /proc
mount -o bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys
cp -a /etc {folder}/etc && mount --bind {folder}/etc /etc
mount -t tmpfs tmpfs /srv && mkdir /srv/python /srv/source /srv/packages
mount --bind {python} /srv/python
mount --bind {source} /srv/source
mount --bind {packages} /srv/packages
for path in /run /var /opt; do mount -t tmpfs -o mode=755 tmpfs $path; done
mkdir -p /run/systemd /var/lib /var/cache && mkdir -m 1777 /var/tmp
umount -R /sys/fs/cgroup 2>/dev/null || umount -l /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
useradd --system --user-group --no-create-home sam2-stream
install -D -m 755 {folder}/program {program}
install -D -m 644 {folder}/config {config}
install -d -m 700 /etc/sam2-stream/credentials
echo user:password | install -m 600 /dev/stdin /etc/sam2-stream/credentials/door
mount --make-rshared /
export container=other SYSTEMD_UNIT_PATH={folder}/units
exec /lib/systemd/systemd --system --unit=default.target --show-status=no --log-target=null
"""


@dataclass(frozen=True)
class Machine:
    """What systemd manages; `pid` is systemd's, seen from outside."""

    pid: int
    folder: Path
    port: int

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        inside = ["nsenter", "-t", str(self.pid), "-m", "-p", "-C", "-u", "-i", "--", *words]
        return subprocess.run(inside, capture_output=True, text=True, timeout=100, check=False)

    def show(self, name: str) -> str:
        return self.run("systemctl", "show", "-P", name, "sam2-stream").stdout.strip()

    def wait_for(self, name: str, value: str, limit_s: float = 60.0) -> None:
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            if self.show(name).startswith(value):
                return
            time.sleep(0.1)
        raise AssertionError(f"{name} is {self.show(name)!r}, not {value!r}:\n{self.journal()}")

    def journal(self) -> str:
        return (self.folder / "journal").read_text(encoding="utf-8")

    @property
    def config(self) -> Path:
        return self.folder / "etc" / Path(CONFIG).relative_to("/etc")


def prepare(folder: Path, port: int) -> None:
    (folder / "units" / f"{UNIT.name}.d").mkdir(parents=True)
    for name in ("default", "sysinit", "basic", "shutdown", "multi-user", "network-online"):
        (folder / "units" / f"{name}.target").write_text("[Unit]\nDefaultDependencies=no\n")
    shutil.copy(UNIT, folder / "units")
    (folder / "units" / f"{UNIT.name}.d" / "test.conf").write_text(DROP_IN.format(folder=folder))
    (folder / "journal").touch()
    (folder / "config").write_text(
        f'device = "cpu"\nbind = ["ipc:///run/sam2-stream/masks", "tcp://127.0.0.1:{port}"]\n' + CAMERA.format("first")
    )
    python = f"/srv/python/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    (folder / "program").write_text(
        "#!/bin/sh\nexport PYTHONHOME=/srv/python LD_LIBRARY_PATH=/srv/python/lib\n"
        "export PYTHONPATH=/srv/source:/srv/packages\n"
        f'exec {python} -m stream.cli "$@"\n'
    )


@pytest.fixture
def machine(tmp_path: Path, needs_apt: Callable[..., None], unused_tcp_port: int) -> Iterator[Machine]:
    needs_apt("systemd")
    if os.geteuid() != 0 or Path("/run/systemd/system").exists():
        pytest.skip("expected to be root in a container that systemd does not manage")
    cgroups = next((path for path in CGROUPS if (path / "cgroup.controllers").exists()), None)
    if cgroups is None or not os.access(cgroups, os.W_OK):
        pytest.skip("expected a cgroup hierarchy of version 2 that can be written")
    prepare(tmp_path, unused_tcp_port)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.name.startswith("pytest"):
            folder.chmod(0o755)
    group = cgroups / f"sam2-stream-test-{os.getpid()}"
    group.mkdir()
    boot = BOOT.format(
        folder=tmp_path, python=sys.base_prefix, source=ROOT, packages=sysconfig.get_path("purelib"),
        program=PROGRAM, config=CONFIG,
    )  # fmt: skip
    script = f"echo $$ > {group}/cgroup.procs && exec unshare -m -p -C -u -i --fork --kill-child bash -c '{boot}'"
    with subprocess.Popen(["bash", "-c", script], start_new_session=True) as outer:
        try:
            yield Machine(wait_for_systemd(outer), tmp_path, unused_tcp_port)
        finally:
            (group / "cgroup.kill").write_text("1")
    deadline = time.monotonic() + 30
    while "populated 1" in (group / "cgroup.events").read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    for found in sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True):
        found.rmdir()
    group.rmdir()


def wait_for_systemd(outer: subprocess.Popen[bytes]) -> int:
    """Its PID, once it answers."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and outer.poll() is None:
        children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()
        if children and os.path.basename(os.readlink(f"/proc/{children[0]}/exe")) == "systemd":
            probe = Machine(int(children[0]), Path(), 0).run("systemctl", "is-active", "default.target")
            if probe.stdout.strip() == "active":
                return int(children[0])
        time.sleep(0.1)
    raise AssertionError(f"systemd does not run; exit code {outer.poll()}")


@pytest.mark.timeout(300)
def test_a_real_systemd_starts_reloads_watches_and_restarts_the_service(machine: Machine) -> None:
    started = machine.run("systemctl", "start", "sam2-stream")  # ends when the service says that it is ready
    assert started.returncode == 0, started.stderr + machine.journal()
    with Subscriber(f"tcp://127.0.0.1:{machine.port}", timeout_s=60) as reader:
        assert next(iter(reader)).camera == "first"
    inside = f"/proc/{machine.show('MainPID')}/root/run/credentials/sam2-stream.service"
    assert machine.run("cat", f"{inside}/camera_door").stdout == "user:password\n"
    assert machine.run("cat", f"{inside}/server.key").stdout == "none"
    assert machine.run("stat", "-c", "%U:%G %a", "/run/sam2-stream/masks").stdout == "sam2-stream:sam2-stream 770\n"

    machine.config.write_text(machine.config.read_text() + CAMERA.format("second"))
    assert machine.run("systemctl", "reload", "sam2-stream").returncode == 0
    machine.wait_for("StatusText", "nano, 2 of 2 cameras")
    assert machine.show("NRestarts") == "0"

    machine.run("kill", f"-{signal.SIGSTOP.name.removeprefix('SIG')}", machine.show("MainPID"))  # it hangs
    machine.wait_for("NRestarts", "1")
    machine.wait_for("ActiveState", "active")

    machine.config.write_text("oops = 1\n")
    assert machine.run("systemctl", "restart", "sam2-stream").returncode != 0
    machine.wait_for("ActiveState", "failed")
    assert machine.show("ExecMainStatus") == "78" and "oops = 1" in machine.journal()
