"""What the configuration needs of this machine: weights, ports, keys, and a folder to save in.

Owns: nothing. Runs in whichever thread calls it. Never: leaves a port bound or a file made, or shows a secret.
"""

from __future__ import annotations

import errno
import functools
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import zmq

from engines.weights import WeightsError, path
from stream.client import Subscriber
from stream.config import Config
from stream.config.checks import is_local
from stream.controller import Controller
from stream.doctor.finding import Finding, broken, note, ok
from stream.doors import BindError, check_endpoint
from stream.health.server import listen
from stream.keys import KeyRing, KeysError
from stream.knock import has_key

ANSWER_LIMIT_S = 1.0
RUNTIME = Path("/run/sam2-stream")


def setup(config: Config) -> Iterator[Finding]:
    """Everything but cameras."""
    yield weights(config)
    yield keys(config)
    doors = (
        ("publishing", config.bind, _is_publisher, zmq.SUB),
        ("commands", config.control_endpoints, _takes_commands, zmq.DEALER),
    )
    for subject, endpoints, is_plain, socket_type in doors:
        is_guarded = functools.partial(_has_our_key, config.keys, socket_type=socket_type)
        for endpoint in endpoints:
            is_ours = is_plain if is_local(endpoint) else is_guarded
            yield door(subject, endpoint, has_keys=config.keys is not None, is_ours=is_ours)
    if config.http:
        yield http(config.http)
    yield state(config.state)


def weights(config: Config) -> Finding:
    """Whether the checkpoint is here and whole; reads all of it."""
    if config.checkpoint is not None:
        return ok("weights", f"{config.model} from {config.checkpoint}; whether they fit shows at the start")
    try:
        return ok("weights", f"{config.model}: {path(config.model)}")
    except WeightsError as error:
        return broken("weights", str(error), f"sam2-stream weights pull {config.model}")


def keys(config: Config) -> Finding:
    """The daemon's key, and who is let in."""
    if config.keys is None:
        return ok("keys", "none configured: only this machine can connect")
    try:
        clients = KeyRing.open(config.keys).clients().values()
    except KeysError as error:
        text, _, fix = str(error).rpartition(": ")
        is_command = fix.startswith(("sam2-stream ", "chmod ", "sudo "))
        return broken("keys", text, fix) if is_command else broken("keys", str(error))
    return ok("keys", f"{config.keys} lets in " + ", ".join(f"{client.name} ({client.role})" for client in clients))


def door(subject: str, endpoint: str, *, has_keys: bool, is_ours: Callable[[str], bool]) -> Finding:
    """Whether an endpoint can be bound, or is our own daemon's."""
    folder = Path(endpoint.removeprefix("ipc://")).parent
    if endpoint.startswith("ipc://") and folder == RUNTIME and not folder.is_dir():
        return note(subject, f"{endpoint}: systemd makes its folder when the service starts")
    try:
        check_endpoint(endpoint, has_keys=has_keys)
        if endpoint.startswith("tcp://"):
            _try_tcp(endpoint)
        elif not os.access(folder, os.W_OK):
            return broken(subject, f"{endpoint}: this user may not write in {folder}", f"ls -ld {folder}")
    except BindError as error:
        if "in use" not in str(error):
            return broken(subject, str(error))
        if is_ours(endpoint):
            return note(subject, f"{endpoint}: a daemon runs there now")
        port = endpoint.rpartition(":")[2]
        by_port = f"sudo ss -ltnp 'sport = :{port}'"
        return broken(subject, str(error), by_port if endpoint.startswith("tcp://") else f"sudo fuser -v {port[2:]}")
    return ok(subject, f"{endpoint} is free")


def http(address: str) -> Finding:
    """The port of /live /ready /status /metrics."""
    try:
        listen(address).close()
    except BindError as error:
        port = address.rpartition(":")[2]
        fixes = (f"curl -s http://{address}/ready", f"sudo ss -ltnp 'sport = :{port}'")
        return (
            note("http", f"{error}; is a daemon running?", *fixes)
            if "in use" in str(error)
            else broken("http", str(error))
        )
    return ok("http", f"{address} is free")


def state(folder: Path | None) -> Finding:
    """Where objects that were added by command are kept."""
    given = folder or (Path(text) if (text := os.environ.get("STATE_DIRECTORY", "").partition(":")[0]) else None)
    if given is None:
        return note("state", "no folder: objects added by command are forgotten at a restart (a service has one)")
    nearest = next((parent for parent in (given, *given.parents) if parent.is_dir()), given)
    if not os.access(nearest, os.W_OK | os.X_OK):
        return broken("state", f"this user may not write in {nearest}", f"sudo chown $USER {nearest}")
    return ok("state", f"objects added by command are kept in {given}")


def _try_tcp(endpoint: str) -> None:
    """Raises BindError."""
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    host = {"*": "0.0.0.0", "localhost": "127.0.0.1"}.get(host, host.strip("[]"))
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, 0 if port == "*" else int(port)))
            probe.listen()
        except OSError as error:
            known = {errno.EADDRINUSE: "is in use", errno.EADDRNOTAVAIL: "is no address of this machine"}
            reason = known.get(error.errno or 0, (error.strerror or str(error)).lower())
            raise BindError(f"{endpoint} {reason}; expected a free port of an address that this machine has") from error


def _has_our_key(folder: Path | None, endpoint: str, *, socket_type: int) -> bool:
    """Of an address that other machines reach; the daemon logs one refused client."""
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    here = {"*": "127.0.0.1", "0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)
    try:
        server = KeyRing.open(folder or Path()).public
    except KeysError:
        return False
    return has_key(f"tcp://{here}:{port}", server, socket_type=socket_type)


def _is_publisher(endpoint: str) -> bool:
    with Subscriber(endpoint, newest_only=False, timeout_s=ANSWER_LIMIT_S) as subscriber:
        try:
            subscriber.receive()
        except (TimeoutError, ValueError):
            return False
    return True


def _takes_commands(endpoint: str) -> bool:
    with Controller(endpoint, timeout_s=ANSWER_LIMIT_S) as controller:
        try:
            controller.ping()
        except (TimeoutError, ValueError, RuntimeError):
            return False
    return True
