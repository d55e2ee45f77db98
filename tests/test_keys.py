"""The folder of keys: made, listed, revoked, and refused when somebody else could have read or changed it."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stream.cli import main
from stream.keys import ClientKeys, KeyFolder, KeyRing, KeysError, default_folder


@pytest.fixture
def folder(tmp_path: Path) -> KeyFolder:
    """alice may view, carol may command."""
    keys = KeyFolder(tmp_path / "keys")
    keys.new("alice", "view")
    keys.new("carol", "control")
    return keys


@pytest.fixture
def open_umask() -> Iterator[None]:
    """The careless user's: new files are for everybody."""
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# --- files -----------------------------------------------------------------------------------------------------------


def test_private_files_are_0600_whatever_the_umask(open_umask: None, folder: KeyFolder) -> None:
    files = {path.name: mode(path) for path in folder.path.iterdir()}
    assert files == {"server.key": 0o600, "alice.key": 0o600, "carol.key": 0o600, "clients.toml": 0o644}


def test_a_private_file_never_existed_with_a_wider_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even for the moment between its creation and a chmod."""
    created: list[int] = []
    real = os.open

    def watched(path: str, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_CREAT:
            created.append(mode)
        return real(path, flags, mode)

    monkeypatch.setattr(os, "open", watched)
    KeyFolder(tmp_path / "keys").new("alice", "view")
    assert created == [0o600] * 3


def test_what_was_written_is_read(folder: KeyFolder) -> None:
    ring, alice = KeyRing.open(folder.path), ClientKeys.load(folder.path / "alice.key")
    assert (alice.name, alice.role, alice.server) == ("alice", "view", ring.public)
    assert ring.role_of(alice.public) == "view" and ring.role_of(ring.public) is None
    assert [(client.name, client.role) for client in folder.list()] == [("alice", "view"), ("carol", "control")]


def test_a_control_key_may_also_view_and_a_view_key_may_not_command(folder: KeyFolder) -> None:
    alice, carol = folder.list()
    assert [client.may(domain) for client in (alice, carol) for domain in ("view", "control")] == [
        True, False, True, True,
    ]  # fmt: skip


@pytest.mark.parametrize("wrong", [0o644, 0o640, 0o604, 0o620, 0o666])
def test_a_private_file_that_others_can_read_or_write_is_refused_with_the_command(
    folder: KeyFolder, wrong: int
) -> None:
    for name, load in (("alice.key", ClientKeys.load), ("server.key", lambda path: KeyRing.open(path.parent))):
        path = folder.path / name
        path.chmod(wrong)
        with pytest.raises(
            KeysError, match=rf"can be read by others \(mode {wrong:04o}\); expected 0600: chmod 600 {path}"
        ):
            load(path)
        path.chmod(0o600)
        load(path)


def test_an_allow_list_that_others_can_write_is_refused(folder: KeyFolder) -> None:
    (folder.path / "clients.toml").chmod(0o664)
    with pytest.raises(KeysError, match=r"written by others \(mode 0664\); expected 0644: chmod 644"):
        KeyRing.open(folder.path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_refused(folder: KeyFolder) -> None:
    os.chown(folder.path / "alice.key", 12345, -1)
    with pytest.raises(KeysError, match="belongs to user 12345, who could change it"):
        ClientKeys.load(folder.path / "alice.key")


def test_what_is_no_regular_file_is_refused_and_nothing_waits(folder: KeyFolder) -> None:
    os.mkfifo(folder.path / "pipe.key", 0o600)
    for name in ("pipe.key", "."):
        with pytest.raises(KeysError, match="is not a regular file"):
            ClientKeys.load(folder.path / name)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda text: text[: len(text) // 2], "expected a file that"),
        (lambda text: text.replace("secret", "sekret"), "secret key missing"),
        (lambda text: text.replace('role = "view"', 'role = "admin"'), "role 'admin', expected view or control"),
        (lambda text: "\0\xff" * 100, "not TOML; expected a file"),
        (lambda text: "#" * 2_000_000, "more than 1048576 bytes"),
        (lambda text: text.replace('public = "', 'public = "aaaa'), "public key missing or not 40 characters"),
    ],
)
def test_a_damaged_key_file_is_told_without_its_secret(
    folder: KeyFolder, change: Callable[[str], str], text: str
) -> None:
    path = folder.path / "alice.key"
    secret = ClientKeys.load(path).secret
    path.write_text(change(path.read_text()))
    with pytest.raises(KeysError, match=text) as caught:
        ClientKeys.load(path)
    assert secret[:8] not in str(caught.value) and "\n" not in str(caught.value)


def test_halves_of_two_pairs_are_refused(folder: KeyFolder) -> None:
    alice, carol = (ClientKeys.load(folder.path / f"{name}.key") for name in ("alice", "carol"))
    path = folder.path / "alice.key"
    path.write_text(path.read_text().replace(alice.secret, carol.secret))
    with pytest.raises(KeysError, match="do not belong together"):
        ClientKeys.load(path)


def test_secrets_do_not_show(folder: KeyFolder) -> None:
    ring, alice = KeyRing.open(folder.path), ClientKeys.load(folder.path / "alice.key")
    assert ring.secret not in repr(ring) and alice.secret not in repr(alice)


def test_without_keys_or_clients_the_command_that_makes_some_is_told(tmp_path: Path, folder: KeyFolder) -> None:
    with pytest.raises(
        KeysError, match=rf"no keys in {tmp_path / 'none'} .* sam2-stream keys new NAME --role view --keys"
    ):
        KeyRing.open(tmp_path / "none")
    for name in ("alice", "carol"):
        folder.revoke(name)
    with pytest.raises(
        KeysError, match=r"nobody may connect: .*clients.toml names no client; .*sam2-stream keys new NAME"
    ):
        KeyRing.open(folder.path)


def test_the_servers_key_may_come_from_systemd(
    folder: KeyFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As LoadCredential leaves it: the folder's own is then not needed, nor readable."""
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    expected = KeyRing.open(folder.path)
    (folder.path / "server.key").rename(credentials / "server.key")
    (credentials / "server.key").chmod(0o440)  # the group's bits are the mask of an access list there
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    assert KeyRing.open(folder.path) == expected
    (folder.path / "server.key").write_bytes((credentials / "server.key").read_bytes())
    (folder.path / "server.key").chmod(0o600)
    (credentials / "server.key").write_text("none")  # as the unit says it where root has none
    assert KeyRing.open(folder.path) == expected
    (folder.path / "server.key").rename(credentials / "server.key")
    (credentials / "server.key").chmod(0o444)
    with pytest.raises(KeysError, match="expected 0400"):
        KeyRing.open(folder.path)


def test_a_folder_that_cannot_be_entered_is_told(folder: KeyFolder) -> None:
    for path in (folder.path / "server.key", folder.path / ("x" * 300)):
        with pytest.raises(
            KeysError, match=r"(Not a directory|File name too long); expected a folder that this user may"
        ):
            KeyRing.open(path)


def test_a_strict_umask_keeps_nobody_from_the_allow_list(tmp_path: Path) -> None:
    """Root's may be 077, and the service runs as another user."""
    before = os.umask(0o077)
    KeyFolder(tmp_path / "keys").new("alice", "view")
    os.umask(before)
    assert mode(tmp_path / "keys") == 0o755 and mode(tmp_path / "keys" / "clients.toml") == 0o644
    assert mode(tmp_path / "keys" / "server.key") == 0o600


# --- changes ---------------------------------------------------------------------------------------------------------


def test_a_key_is_never_replaced(folder: KeyFolder) -> None:
    before = (folder.path / "alice.key").read_bytes()
    with pytest.raises(
        KeysError, match="alice has a key; expected a new name, or first: sam2-stream keys revoke alice"
    ):
        folder.new("alice", "control")
    (folder.path / "stray.key").write_text("something of the user's")
    with pytest.raises(KeysError, match=r"stray.key exists, but stray is not allowed in"):
        folder.new("stray", "view")
    assert (folder.path / "alice.key").read_bytes() == before


@pytest.mark.parametrize("name", ["", "a b", "a/b", "../x", "a.b", 'x"', "a\n", "server", "n" * 65, "ä"])
def test_names_are_checked(folder: KeyFolder, name: str) -> None:
    with pytest.raises(KeysError, match="expected 1 to 64 of"):
        folder.new(name, "view")


def test_revoking_ends_the_key_and_deletes_its_file(folder: KeyFolder) -> None:
    ring, alice = KeyRing.open(folder.path), ClientKeys.load(folder.path / "alice.key")
    folder.revoke("alice")
    assert ring.role_of(alice.public) is None and not (folder.path / "alice.key").exists()
    with pytest.raises(KeysError, match=r"no client 'alice' in .*, expected one of: carol"):
        folder.revoke("alice")
    folder.new("alice", "view")
    assert ring.role_of(alice.public) is None, "a new key of the same name must not let the old one in"


def test_two_names_with_one_key_are_refused(folder: KeyFolder) -> None:
    path = folder.path / "clients.toml"
    path.write_text(path.read_text() + path.read_text().replace("alice", "mallory").replace("carol", "eve"))
    with pytest.raises(KeysError, match=r"has the key of \w+; expected one of its own"):
        folder.list()


def test_commands_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    names = [f"client{index}" for index in range(6)]
    program = "import pathlib, sys\nfrom stream.keys import KeyFolder\n"
    program += "KeyFolder(pathlib.Path(sys.argv[1])).new(sys.argv[2], 'view')"
    started = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "keys"), name]) for name in names]
    assert [process.wait(60) for process in started] == [0] * len(names)
    folder = KeyFolder(tmp_path / "keys")
    assert [client.name for client in folder.list()] == names
    ring = KeyRing.open(folder.path)
    assert {ClientKeys.load(folder.path / f"{name}.key").server for name in names} == {ring.public}


# --- the command line ------------------------------------------------------------------------------------------------


def test_the_commands_do_what_they_say(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAM2_STREAM_KEYS", str(tmp_path / "mine"))
    assert default_folder() == tmp_path / "mine"
    assert main(["keys", "new", "alice", "--role", "view"]) == 0
    assert main(["keys", "list"]) == 0
    alice = ClientKeys.load(tmp_path / "mine" / "alice.key")
    out = capsys.readouterr().out
    assert f"alice                   view     {alice.public}" in out and alice.secret not in out
    assert "--key alice.key" in out and f"--keys {tmp_path / 'mine'}" in out
    assert main(["keys", "revoke", "alice"]) == 0 and main(["keys", "list"]) == 0
    assert "nobody is allowed in" in capsys.readouterr().out
    assert main(["keys", "revoke", "alice"]) == 1 and main(["keys", "new", "bob"]) == 2
    assert capsys.readouterr().err.count("\n") == 2
    assert main(["keys", "list", "--keys", str(tmp_path / "none")]) == 1
    assert f"sam2-stream keys new NAME --keys {tmp_path / 'none'} --role view" in capsys.readouterr().err


def test_the_default_folder_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SAM2_STREAM_KEYS", raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_folder() == tmp_path / ".config" / "sam2-stream" / "keys"
