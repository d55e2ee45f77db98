"""One file over HTTPS: resumed where it broke off, verified, and put in place in one step.

Owns: `<target>.part` (what has arrived), `<target>.part.version` (which version on the server it belongs to),
`<target>.lock` and `<target>.sha256` (what arrived at the first download). Runs in the caller's thread; several
processes may ask for the same file, one of them downloads. Never: leaves a file under its final name that is short or
whose hash differs, speaks plain HTTP beyond this machine, imports torch.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import http.client
import io
import ipaddress
import logging
import os
import re
import shutil
import ssl
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.message import Message
from pathlib import Path

Progress = Callable[[int, int], None]  # bytes that are here, bytes in all

_LOG = logging.getLogger(__name__)
_BLOCK_BYTES = 256 * 1024
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18})")
_WORTH_ANOTHER_TRY = frozenset({408, 425, 429, 500, 502, 503, 504})


class DownloadError(Exception):
    """The file cannot be had or is not what was expected; the text is one line for the user."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """Where a file is, and what is known of it beforehand."""

    url: str
    num_bytes: int | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """How long to be patient, and how much to accept."""

    timeout_s: float = 30.0  # for a connection, or without a single byte
    num_attempts: int = 5  # in a row that bring nothing new
    backoff_s: float = 1.0  # before the second attempt; doubles
    max_bytes: int = 2 << 30


def fetch(remote: RemoteFile, target: Path, *, progress: Progress | None = None, limits: Limits | None = None) -> Path:
    """Downloads `remote` unless `target` is there, verifies it and returns `target`; raises `DownloadError`."""
    _check_url(remote.url)
    try:
        with _exclusive(_beside(target, ".lock")):
            if target.exists():  # another process brought it while we waited for the lock
                verify(target, remote.sha256)
            else:
                part = _beside(target, ".part")
                _Transfer(remote, part, limits=limits or Limits(), progress=progress).run()
                _put_in_place(remote, part, target)
    except OSError as error:  # those of the network have become a DownloadError by now
        raise DownloadError(f"{error.filename or target}: {error.strerror or error}") from error
    return target


def _put_in_place(remote: RemoteFile, part: Path, target: Path) -> None:
    with part.open("rb") as file:
        os.fsync(file.fileno())
    digest = sha256_of(part)
    if remote.sha256 not in (None, digest):
        _discard(part)
        raise DownloadError(f"{remote.url}: SHA-256 is {digest}, expected {remote.sha256}; threw the download away")
    _beside(target, ".sha256").write_text(f"{digest}  {target.name}\n")
    os.replace(part, target)
    _discard(part)


def verify(target: Path, sha256: str | None) -> None:
    """Compares a file with its pinned hash, else with the one recorded beside it; without either, accepts it."""
    record = _beside(target, ".sha256")
    if sha256 is None and not record.exists():
        return
    expected = sha256 or next(iter(record.read_text(errors="replace").split()), "")
    digest = sha256_of(target)
    if digest != expected:
        source = "pinned in this release" if sha256 else f"recorded in {record.name}"
        raise DownloadError(f"{target}: SHA-256 is {digest}, expected {expected} ({source}); delete it and pull again")


def sha256_of(path: Path) -> str:
    """The hash of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Transfer:
    """Brings a part to the full length of the remote file. Every field is written by the calling thread."""

    def __init__(self, remote: RemoteFile, part: Path, *, limits: Limits, progress: Progress | None) -> None:
        self._remote = remote
        self._part = part
        self._version_file = _beside(part, ".version")
        self._limits = limits
        self._progress = progress
        proxies: dict[str, str] | None = {} if _is_loopback(remote.url) else None  # None: those of the environment
        self._opener = urllib.request.build_opener(_OnlySafeAddresses(), urllib.request.ProxyHandler(proxies))
        self._pause = threading.Event()  # never set: its limit is the pause between attempts

    def run(self) -> None:
        num_failures, num_bytes_best = 0, self._num_bytes_here()
        while True:
            try:
                self._attempt()
                return
            except (OSError, http.client.HTTPException) as error:
                if _is_local(error):
                    raise
                reason = _reason(error)
            num_bytes = self._num_bytes_here()
            num_failures = 1 if num_bytes > num_bytes_best else num_failures + 1
            num_bytes_best = max(num_bytes, num_bytes_best)
            if num_failures >= self._limits.num_attempts:
                raise DownloadError(f"{self._remote.url}: {reason}; gave up after {num_failures} attempts")
            pause_s = self._limits.backoff_s * 2 ** (num_failures - 1)
            _LOG.warning("%s: %s; trying again in %g s", self._remote.url, reason, pause_s)
            self._pause.wait(pause_s)

    def _attempt(self) -> None:
        version = self._known_version()
        offset = self._num_bytes_here() if version else 0
        headers = {"Accept-Encoding": "identity", "User-Agent": "sam2-stream"}
        if offset:
            headers |= {"Range": f"bytes={offset}-", "If-Range": version}
        request = urllib.request.Request(self._remote.url, headers=headers)
        try:
            response = self._opener.open(request, timeout=self._limits.timeout_s)
        except urllib.error.URLError as error:
            if self._is_whole(error, offset):
                return
            raise
        with response:
            offset, num_bytes = self._agree(response, offset, version)
            self._receive(response, offset, num_bytes)

    def _is_whole(self, error: urllib.error.URLError, offset: int) -> bool:
        """Whether the server refused because nothing is left to send; what will not pass by itself is raised."""
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise DownloadError(f"{self._remote.url}: the certificate is not trusted: {error.reason}") from error
        if not isinstance(error, urllib.error.HTTPError):
            return False
        error.close()
        if error.code == 416 and offset:
            if error.headers.get("Content-Range") == f"bytes */{offset}":
                return True
            _discard(self._part)
            return False
        if error.code in _WORTH_ANOTHER_TRY:
            return False
        raise DownloadError(f"{self._remote.url}: the server answered {error.code} {error.reason}") from error

    def _agree(self, response: http.client.HTTPResponse, offset: int, version: str) -> tuple[int, int]:
        """Where the answer starts and how long the whole file is; an answer that cannot be the file raises."""
        headers = response.headers
        if "Content-Type" in headers and headers.get_content_type() == "text/html":
            raise DownloadError(f"{self._remote.url}: the server answered with a web page, expected a checkpoint")
        if response.status == 206:
            match = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
            if match is None or int(match[1]) != offset or _version_of(headers) not in ("", version):
                _discard(self._part)
                raise ConnectionError("the server resumed another file, or at another place")
            return offset, self._check_num_bytes(int(match[2]), offset)
        length = headers.get("Content-Length", "")
        num_bytes = self._check_num_bytes(int(length) if re.fullmatch(r"[0-9]{1,18}", length) else None, 0)
        _discard(self._part)
        self._version_file.write_text(_version_of(headers), encoding="latin-1")
        return 0, num_bytes

    def _check_num_bytes(self, announced: int | None, offset: int) -> int:
        expected = self._remote.num_bytes
        num_bytes = expected if announced is None else announced
        if num_bytes is None:
            raise DownloadError(f"{self._remote.url}: the server does not say how long the file is (no Content-Length)")
        if expected is not None and num_bytes != expected:
            raise DownloadError(f"{self._remote.url}: the server announces {num_bytes} bytes, expected {expected}")
        if num_bytes > self._limits.max_bytes:
            raise DownloadError(f"{self._remote.url}: {num_bytes} bytes, expected at most {self._limits.max_bytes}")
        num_bytes_free = shutil.disk_usage(self._part.parent).free
        if num_bytes - offset > num_bytes_free:
            raise DownloadError(f"{self._part.parent}: {num_bytes_free} bytes free, {num_bytes - offset} are needed")
        return num_bytes

    def _receive(self, response: http.client.HTTPResponse, offset: int, num_bytes: int) -> None:
        num_bytes_here = offset
        # Where Python tells a broken answer by IncompleteRead, the numbers below tell it better.
        with self._part.open("ab", buffering=0) as file, contextlib.suppress(http.client.IncompleteRead):
            while block := response.read1(_BLOCK_BYTES):
                num_bytes_here += len(block)
                if num_bytes_here > num_bytes:
                    break
                _write(file, block)
                if self._progress is not None:
                    self._progress(num_bytes_here, num_bytes)
        if num_bytes_here > num_bytes:
            _discard(self._part)
            raise DownloadError(f"{self._remote.url}: the server sends more than the {num_bytes} bytes expected")
        if num_bytes_here < num_bytes:
            raise ConnectionError(f"the connection broke off after {num_bytes_here} of {num_bytes} bytes")

    def _num_bytes_here(self) -> int:
        return self._part.stat().st_size if self._part.exists() else 0

    def _known_version(self) -> str:
        lines = self._version_file.read_text(encoding="latin-1").splitlines() if self._version_file.exists() else []
        return lines[0] if lines else ""


class _OnlySafeAddresses(urllib.request.BaseHandler):
    """Sees every request before it is sent, redirected ones too."""

    def http_request(self, request: urllib.request.Request) -> urllib.request.Request:
        _check_url(request.full_url)
        return request

    https_request = http_request
    ftp_request = http_request


def _check_url(url: str) -> None:
    scheme = urllib.parse.urlsplit(url).scheme
    if scheme != "https" and not (scheme == "http" and _is_loopback(url)):
        raise DownloadError(f"{url}: expected an address that starts with https://")


def _is_loopback(url: str) -> bool:
    host = urllib.parse.urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _version_of(headers: Message) -> str:
    """What names this version for `If-Range`: a strong ETag, else the date, else nothing (then no resuming)."""
    etag = str(headers.get("ETag", ""))
    return etag if etag.startswith('"') else str(headers.get("Last-Modified", ""))


@contextlib.contextmanager
def _exclusive(lock: Path) -> Iterator[None]:
    """Only one process or thread at a time; the system lets go when the holder dies."""
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _LOG.warning("%s: another process is downloading this file, waiting for it", lock.parent)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _is_local(error: Exception) -> bool:
    """Whether it comes from our disk: such an error names a file, one of a socket does not (an HTTPError: its URL)."""
    return isinstance(error, OSError) and not isinstance(error, urllib.error.URLError) and error.filename is not None


def _reason(error: Exception) -> str:
    inner = error.reason if isinstance(error, urllib.error.URLError) and not hasattr(error, "code") else error
    return str(inner) or type(error).__name__


def _write(file: io.FileIO, block: bytes) -> None:
    view = memoryview(block)
    try:
        while view:
            view = view[file.write(view) :]
    except OSError as error:
        raise OSError(error.errno, error.strerror, file.name) from error


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _beside(part, ".version").unlink(missing_ok=True)
