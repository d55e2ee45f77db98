"""Keys as a daemon and as a client hold them: `KeyRing` and `ClientKeys`, read from files and checked.

Owns: the layout of the files. Values are frozen; any thread reads them. Never: writes a file, shows a secret key, or
accepts a file that others can read.

    server.key      name, public and secret key of the daemon; private
    clients.toml    the allow-list: one table a client, with its public key and its role
    NAME.key        what client NAME needs: its keys, and the daemon's public key; private

Keys are CURVE keys in Z85, 40 characters. The daemon's secret may also lie in $CREDENTIALS_DIRECTORY/server.key, where
systemd's LoadCredential puts it; the allow-list is always the folder's, so that it can change while the daemon runs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self, get_args

import zmq

from stream.keys.files import KeysError, Kind, is_there, read_toml

Role = Literal["view", "control"]
Domain = Literal["view", "control"]
SERVER, CLIENTS = "server.key", "clients.toml"
NONE = "none"
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
KEY = re.compile(r"[0-9A-Za-z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")


@dataclass(frozen=True, slots=True)
class Client:
    """One line of the allow-list."""

    name: str
    public: str
    role: Role

    def may(self, domain: Domain) -> bool:
        """A control key may also view."""
        return self.role == "control" or domain == "view"


@dataclass(frozen=True, slots=True)
class ClientKeys:
    """What a client needs to be let in: for `Subscriber(keys=...)`, `Controller(keys=...)` and `--key FILE`."""

    name: str
    role: Role
    public: str
    server: str
    secret: str = field(repr=False)

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Raises KeysError."""
        path = Path(path)
        content = read_toml(path, kind_of(path))
        expected = f"a file that `sam2-stream keys new NAME` wrote ({path})"
        public, secret = _pair(content, expected)
        return cls(
            name=str(content.get("name", path.stem)), role=_role(content, expected), public=public,
            server=_key(content, "server", expected), secret=secret,
        )  # fmt: skip

    def apply(self, socket: zmq.Socket[bytes]) -> None:
        """Before `connect`: from now on this socket speaks only to the daemon that these keys are for."""
        socket.curve_publickey, socket.curve_secretkey = self.public.encode(), self.secret.encode()
        socket.curve_serverkey = self.server.encode()


@dataclass(frozen=True, slots=True)
class KeyRing:
    """The daemon's keys, and where its allow-list is; `stream.keys.Guard` puts them to use."""

    folder: Path
    public: str
    secret: str = field(repr=False)

    @classmethod
    def open(cls, folder: Path | str) -> Self:
        """Raises KeysError: no keys, unsafe files, or nobody on the allow-list."""
        folder = Path(folder)
        path = server_path(folder)
        if not is_there(path):
            raise KeysError(f"no keys in {folder} ({SERVER} is missing); expected some: {make(folder)}")
        public, secret = _pair(read_toml(path, kind_of(path)), f"a file that `sam2-stream keys new` wrote ({path})")
        ring = cls(folder=folder, public=public, secret=secret)
        if not ring.clients():
            raise KeysError(f"nobody may connect: {folder / CLIENTS} names no client; expected one: {make(folder)}")
        return ring

    def clients(self) -> Mapping[str, Client]:
        """The allow-list as it is now, by public key; empty when there is no file. Raises KeysError."""
        return read_clients(self.folder)

    def role_of(self, public_key: str) -> Role | None:
        """Reads the file: for rare questions. Raises KeysError."""
        client = self.clients().get(public_key)
        return client.role if client else None


def make(folder: Path) -> str:
    return f"sam2-stream keys new NAME --role view --keys {folder}"


def server_path(folder: Path) -> Path:
    """systemd's copy, else the folder's; the unit puts NONE where there is no file to copy."""
    given = os.environ.get("CREDENTIALS_DIRECTORY")
    copy = Path(given, SERVER) if given else None
    return copy if copy is not None and copy.exists() and copy.stat().st_size > len(NONE) else folder / SERVER


def kind_of(path: Path) -> Kind:
    given = os.environ.get("CREDENTIALS_DIRECTORY")
    return "credential" if given and path.parent == Path(given) else "private"


def read_clients(folder: Path) -> dict[str, Client]:
    """By public key; empty when there is no file. Raises KeysError."""
    path = folder / CLIENTS
    if not is_there(path):
        return {}
    clients: dict[str, Client] = {}
    for name, content in read_toml(path, "public").items():
        expected = f"[{name}] with its public key and role ({path})"
        if not NAME.fullmatch(name) or not isinstance(content, dict):
            raise KeysError(f"{path}: {name!r}; expected tables named with 1 to 64 of A-Z a-z 0-9 _ -")
        client = Client(name, _key(content, "public", expected), _role(content, expected))
        if client.public in clients:
            raise KeysError(f"{path}: {name} has the key of {clients[client.public].name}; expected one of its own")
        clients[client.public] = client
    return clients


def _pair(content: Mapping[str, Any], expected: str) -> tuple[str, str]:
    public, secret = _key(content, "public", expected), _key(content, "secret", expected)
    if zmq.curve_public(secret.encode()).decode() != public:
        raise KeysError(f"public and secret key do not belong together; expected {expected}")
    return public, secret


def _key(content: Mapping[str, Any], name: str, expected: str) -> str:
    value = content.get(name)
    if not isinstance(value, str) or not KEY.fullmatch(value):
        raise KeysError(f"{name} key missing or not 40 characters of Z85; expected {expected}")
    return value


def _role(content: Mapping[str, Any], expected: str) -> Role:
    value = content.get("role")
    for role in get_args(Role):
        if value == role:
            return role  # type: ignore[no-any-return]
    raise KeysError(f"role {value!r}, expected view or control: {expected}")
