"""Why nothing comes from a daemon: one try to be let in, for the text of a timeout.

Owns: a socket and a ZeroMQ context while it tries. Runs in whichever thread calls it, for a limited time. Never:
watches a socket for longer: libzmq stops all sockets of a context when nobody reads a monitor's events.
"""

from __future__ import annotations

import time

import zmq
from zmq.utils.monitor import recv_monitor_message

from stream.keys import ClientKeys

LIMIT_S = 1.0
EVENTS = (
    zmq.Event.HANDSHAKE_SUCCEEDED
    | zmq.Event.HANDSHAKE_FAILED_AUTH
    | zmq.Event.HANDSHAKE_FAILED_NO_DETAIL
    | zmq.Event.HANDSHAKE_FAILED_PROTOCOL
)


def why_silent(endpoint: str, *, keys: ClientKeys | None, socket_type: int, limit_s: float = LIMIT_S) -> str:
    """What a person should know who waits in vain; "" when nobody is there, or the daemon lets this client in."""
    return _told(_try(endpoint, keys, socket_type, limit_s=limit_s), keys, is_command=socket_type == zmq.DEALER)


def has_key(endpoint: str, server: str, *, socket_type: int, limit_s: float = LIMIT_S) -> bool:
    """Whether the one who listens there has the secret of this public key; asked by somebody whom it does not know."""
    public, secret = (key.decode() for key in zmq.curve_keypair())
    stranger = ClientKeys(name="", role="view", public=public, secret=secret, server=server)
    return _try(endpoint, stranger, socket_type, limit_s=limit_s) == zmq.Event.HANDSHAKE_FAILED_AUTH


def _try(endpoint: str, keys: ClientKeys | None, socket_type: int, *, limit_s: float) -> int:
    with zmq.Context() as context, context.socket(socket_type) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.IPV6, int("[" in endpoint))
        if keys is not None:
            keys.apply(socket)
        with socket.get_monitor_socket(int(EVENTS)) as monitor:
            socket.connect(endpoint)
            outcome = _outcome(monitor, limit_s)
            socket.disable_monitor()
    return outcome


def _outcome(monitor: zmq.Socket[bytes], limit_s: float) -> int:
    """The first clear event; 0 when nobody answers."""
    deadline, outcome = time.monotonic() + limit_s, 0
    while outcome in (0, zmq.Event.HANDSHAKE_FAILED_NO_DETAIL):
        left_ms = int((deadline - time.monotonic()) * 1000)
        if left_ms <= 0 or not monitor.poll(left_ms):
            break
        outcome = int(recv_monitor_message(monitor)["event"])
    return outcome


def _told(outcome: int, keys: ClientKeys | None, *, is_command: bool) -> str:
    if outcome in (0, zmq.Event.HANDSHAKE_SUCCEEDED):
        return ""
    if outcome == zmq.Event.HANDSHAKE_FAILED_AUTH:
        name = f" {keys.name} ({keys.role})" if keys else ""
        if is_command and keys is not None and keys.role == "view":
            return f"the daemon refuses commands from the key{name}; expected one with the role control"
        return f"the daemon refuses the key{name}; expected one that `sam2-stream keys list` names there"
    if keys is None:
        return "the daemon does not talk to clients without a key; expected --key FILE (sam2-stream keys new)"
    return f"the daemon is not the one that the key {keys.name} is for, or takes no keys there"
