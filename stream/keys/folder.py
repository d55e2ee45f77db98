"""The folder of keys as its owner edits it: `sam2-stream keys new | list | revoke`.

Owns: every change of the folder, under a lock that other `keys` commands respect. Runs in whichever thread calls it.
Never: replaces a key that exists, or writes a private file that others can read.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import zmq

from stream.keys.files import KeysError, is_there, read_toml, to_toml, write_file
from stream.keys.ring import CLIENTS, NAME, SERVER, Client, Role, read_clients


def default_folder() -> Path:
    """$SAM2_STREAM_KEYS, else `sam2-stream/keys` in the user's configuration folder."""
    configured = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(os.environ.get("SAM2_STREAM_KEYS") or f"{configured}/sam2-stream/keys").expanduser()


@dataclass(frozen=True, slots=True)
class KeyFolder:
    """Each method is one command; all raise KeysError and OSError."""

    path: Path

    def new(self, name: str, role: Role) -> Path:
        """Make a client's keys and allow it in; the file to hand over. The daemon's own keys are made at first."""
        if not NAME.fullmatch(name) or f"{name}.key" == SERVER:
            raise KeysError(f"name {name!r}, expected 1 to 64 of A-Z a-z 0-9 _ -, and not 'server'")
        with self._locked(make=True):
            clients = read_clients(self.path)
            if any(client.name == name for client in clients.values()):
                raise KeysError(f"{name} has a key; expected a new name, or first: {self._command('revoke', name)}")
            file = self.path / f"{name}.key"
            if is_there(file):
                raise KeysError(f"{file} exists, but {name} is not allowed in; expected no such file: rm {file}")
            public, secret = _new_pair()
            fields = {"name": name, "role": role, "public": public, "secret": secret, "server": self._server()}
            write_file(
                file, to_toml(f"sam2-stream: lets {name} in ({role}). Keep it secret: mode 0600.", fields), "private"
            )
            self._write_clients([*clients.values(), Client(name, public, role)])
        return file

    def list(self) -> Sequence[Client]:
        """By name."""
        if not self.path.is_dir():
            raise KeysError(f"no folder {self.path}; expected one: {self._command('new', 'NAME')} --role view")
        return sorted(read_clients(self.path).values(), key=lambda client: client.name)

    def revoke(self, name: str) -> Client:
        """Let a client in no longer; a running daemon cuts it off within a second. Its file here is deleted too."""
        with self._locked():
            clients = read_clients(self.path)
            found = [client for client in clients.values() if client.name == name]
            if not found:
                names = ", ".join(sorted(client.name for client in clients.values())) or "none"
                raise KeysError(f"no client {name!r} in {self.path / CLIENTS}, expected one of: {names}")
            self._write_clients([client for client in clients.values() if client.name != name])
            (self.path / f"{name}.key").unlink(missing_ok=True)
        return found[0]

    def _server(self) -> str:
        """The daemon's public key; makes the pair on first use."""
        path = self.path / SERVER
        if not is_there(path):
            public, secret = _new_pair()
            text = to_toml(
                "sam2-stream: the daemon's own key. Keep it secret: mode 0600.", {"public": public, "secret": secret}
            )
            write_file(path, text, "private")
        return str(read_toml(path, "private").get("public"))

    def _write_clients(self, clients: Sequence[Client]) -> None:
        text = "# Who may connect. Written by `sam2-stream keys`; a running daemon follows within a second.\n"
        for client in sorted(clients, key=lambda client: client.name):
            text += f"\n[{client.name}]\n" + to_toml("", {"role": client.role, "public": client.public})
        write_file(self.path / CLIENTS, text, "public")

    def _command(self, verb: str, name: str) -> str:
        return f"sam2-stream keys {verb} {name} --keys {self.path}"

    @contextmanager
    def _locked(self, *, make: bool = False) -> Iterator[None]:
        if make and not is_there(self.path):
            with suppress(FileExistsError):  # of another command at the same time
                self.path.mkdir(parents=True)
            self.path.chmod(0o755)  # whatever the umask: a service under its own user reads the allow-list
        try:
            fileno = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise KeysError(f"{self.path}: {error.strerror}; expected a folder of keys") from error
        try:
            fcntl.flock(fileno, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fileno)


def _new_pair() -> tuple[str, str]:
    public, secret = zmq.curve_keypair()
    return public.decode(), secret.decode()
