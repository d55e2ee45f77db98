"""What all tests share: apt packages are named when they are missing, and hypothesis does not race a busy machine."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # or torch's threads spin on a busy machine, for seconds
os.environ["TQDM_DISABLE"] = "1"  # the official predictor draws a progress bar for every call

import shutil
import signal
import socket
import subprocess
from collections.abc import Callable

import hypothesis
import pytest

from stream.cli import main

if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # a shell ignores it for its background jobs, and children inherit
    signal.signal(signal.SIGINT, signal.default_int_handler)
hypothesis.settings.register_profile("steady", deadline=None, print_blob=True)
hypothesis.settings.load_profile("steady")


def missing_apt_packages(packages: tuple[str, ...]) -> list[str]:
    """Those of the packages that dpkg does not call installed; all of them where there is no dpkg."""
    if shutil.which("dpkg-query") is None:
        return list(packages)
    query = ["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\n", *packages]
    lines = subprocess.run(query, capture_output=True, text=True, check=False).stdout.splitlines()
    installed = {line.split()[0] for line in lines if line.endswith(" installed")}
    return [package for package in packages if package not in installed]


@pytest.fixture
def needs_apt() -> Callable[..., None]:
    """Called with apt packages, ends the test where one is missing: skipped on a desk, failed in CI."""

    def check(*packages: str) -> None:
        missing = missing_apt_packages(packages)
        if not missing:
            return
        reason = f"apt packages missing: {' '.join(missing)} (apt-get install {' '.join(missing)})"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)

    return check


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """The command line: call("weights", "list") -> exit code, standard output, standard error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(list(arguments))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def unused_tcp_port() -> int:
    """A port of the loopback that nobody listened on a moment ago."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """A test marked `twice` may fail once: what X, a window manager and Qt lose now and then is not ours to mend."""
    if pyfuncitem.get_closest_marker("twice") is None:
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    try:
        pyfuncitem.obj(**arguments)
    except AssertionError as error:
        print(f"once more, after: {error}")
        pyfuncitem.obj(**arguments)
    return True
