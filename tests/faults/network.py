"""A network between the daemon and a camera: namespaces joined by veth pairs, with a router that loses packets.

    daemon's network -- near/far -- router (nftables: loses packets) -- left/right -- camera

Needs root, `ip` (iproute2) and `nft` (nftables). The kernel's netem would do as well, but not every kernel has it;
nftables drops forwarded packets at random in both directions, below TCP and UDP, which is what a bad link does.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

MARK = "s2f"  # network namespaces of ours: s2f<pid>r and s2f<pid>c
APT_PACKAGES = ("iproute2", "nftables")


class NoNetwork(Exception):
    """This machine gives no network namespaces; the text says why."""


@dataclass(frozen=True)
class Network:
    """An open one. The camera's server is started with `prefix` and listens on `camera_host`."""

    router: str
    camera: str
    camera_host: str
    router_host: str  # as the camera sees it

    @property
    def prefix(self) -> list[str]:
        return ["ip", "netns", "exec", self.camera]

    def lose(self, percent: int) -> None:
        """From now on, this share of the packets in both directions."""
        run("ip", "netns", "exec", self.router, "nft", "flush", "chain", "inet", "loss", "forward")
        if percent:
            rule = f"add rule inet loss forward numgen random mod 100 < {percent} counter drop"
            run("ip", "netns", "exec", self.router, "nft", rule)

    def num_lost(self) -> int:
        """Packets, since `lose` was called."""
        said = run("ip", "netns", "exec", self.router, "nft", "list", "chain", "inet", "loss", "forward").split()
        return int(said[said.index("packets") + 1])

    def pull(self) -> None:
        """The camera's cable comes out."""
        run("ip", "-n", self.camera, "link", "set", "right", "down")

    def plug(self) -> None:
        run("ip", "-n", self.camera, "link", "set", "right", "up")
        run("ip", "-n", self.camera, "route", "replace", "default", "via", self.router_host)


def run(*command: str) -> str:
    """Its output; NoNetwork with its error."""
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise NoNetwork(f"{' '.join(command)}: {result.stderr.strip()}")
    return result.stdout


@contextmanager
def network() -> Iterator[Network]:
    """Make it and take it away again; NoNetwork where that is not possible."""
    missing = [name for name in ("ip", "nft") if shutil.which(name) is None]
    if os.geteuid() != 0 or missing:
        raise NoNetwork(f"needs root, ip and nft (apt: {' '.join(APT_PACKAGES)}); missing: {missing or 'root'}")
    sweep()
    pid = os.getpid()
    net, near = f"198.18.{pid % 250 + 1}", f"{MARK}{pid}"
    made = Network(f"{MARK}{pid}r", f"{MARK}{pid}c", f"{net}.130", f"{net}.129")
    try:
        for name in (made.router, made.camera):
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        run("ip", "link", "add", near, "type", "veth", "peer", "name", "far", "netns", made.router)
        run(
            "ip",
            "-n",
            made.router,
            "link",
            "add",
            "left",
            "type",
            "veth",
            "peer",
            "name",
            "right",
            "netns",
            made.camera,
        )
        run("ip", "address", "add", f"{net}.2/25", "dev", near)
        run("ip", "-n", made.router, "address", "add", f"{net}.1/25", "dev", "far")
        run("ip", "-n", made.router, "address", "add", f"{net}.129/25", "dev", "left")
        run("ip", "-n", made.camera, "address", "add", f"{net}.130/25", "dev", "right")
        run("ip", "link", "set", near, "up")
        for name, link in ((made.router, "far"), (made.router, "left"), (made.camera, "right")):
            run("ip", "-n", name, "link", "set", link, "up")
        run("ip", "route", "add", f"{net}.128/25", "via", f"{net}.1")
        run("ip", "-n", made.camera, "route", "add", "default", "via", f"{net}.129")
        inside = ("ip", "netns", "exec", made.router)
        run(*inside, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        run(*inside, "nft", "add table inet loss")
        run(*inside, "nft", "add chain inet loss forward { type filter hook forward priority 0; }")
        yield made
    finally:
        remove(made.router, made.camera)


def remove(*names: str) -> None:
    for name in names:
        subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def sweep() -> None:
    """Take away what a killed test run left."""
    for line in run("ip", "netns", "list").splitlines():
        name = line.split()[0]
        pid = name.removeprefix(MARK)[:-1]
        if name.startswith(MARK) and pid.isdecimal() and not os.path.exists(f"/proc/{pid}"):
            remove(name)
