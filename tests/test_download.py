"""`engines.download` against a real HTTP server on this machine that breaks off, lies, changes its mind or idles."""

from __future__ import annotations

import hashlib
import multiprocessing
import re
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engines.download import DownloadError, Limits, RemoteFile, fetch, verify
from tests.http_server import Answer, FileServer

CONTENT = hashlib.shake_256(b"a checkpoint").digest(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
QUICK = Limits(timeout_s=5.0, num_attempts=3, backoff_s=0.01)


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer(CONTENT) as running:
        yield running


def remote(server: FileServer) -> RemoteFile:
    return RemoteFile(server.url, len(CONTENT), SHA256)


def unknown(server: FileServer) -> RemoteFile:
    return RemoteFile(server.url)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_file_arrives_whole_with_its_hash_beside_it(server: FileServer, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    target = fetch(
        remote(server), tmp_path / "a.pt", progress=lambda here, total: seen.append((here, total)), limits=QUICK
    )
    assert target.read_bytes() == CONTENT
    assert (tmp_path / "a.pt.sha256").read_text() == f"{SHA256}  a.pt\n"
    assert names(tmp_path) == {"a.pt", "a.pt.sha256", "a.pt.lock"}
    assert seen[-1] == (len(CONTENT), len(CONTENT)) and seen == sorted(seen)


def test_a_file_that_is_there_is_not_asked_for_again(server: FileServer, tmp_path: Path) -> None:
    fetch(remote(server), tmp_path / "a.pt", limits=QUICK)
    fetch(remote(server), tmp_path / "a.pt", limits=QUICK)
    assert len(server.requests) == 1


def test_a_broken_connection_is_resumed_where_it_broke(server: FileServer, tmp_path: Path) -> None:
    server.answers = [Answer(break_after=100_000), Answer(break_after=50_000)]
    target = fetch(remote(server), tmp_path / "a.pt", limits=QUICK)
    assert target.read_bytes() == CONTENT
    assert [request.range_start for request in server.requests] == [None, 100_000, 150_000]
    assert server.requests[1].if_range == '"v1"'


def test_another_run_resumes_what_the_last_one_left(server: FileServer, tmp_path: Path) -> None:
    server.answers = [Answer(break_after=100_000)]
    with pytest.raises(DownloadError, match=r"broke off after 100000 of 300000 bytes; gave up after 1 attempts"):
        fetch(remote(server), tmp_path / "a.pt", limits=Limits(num_attempts=1))
    assert not (tmp_path / "a.pt").exists()
    assert fetch(remote(server), tmp_path / "a.pt", limits=QUICK).read_bytes() == CONTENT
    assert server.requests[-1].range_start == 100_000


def test_a_part_that_is_complete_already_is_only_put_in_place(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "a.pt.part").write_bytes(CONTENT)
    (tmp_path / "a.pt.part.version").write_text('"v1"')
    assert fetch(remote(server), tmp_path / "a.pt", limits=QUICK).read_bytes() == CONTENT
    assert [request.status for request in server.requests] == [416]


def test_a_part_longer_than_the_file_is_thrown_away(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "a.pt.part").write_bytes(CONTENT + b"more")
    (tmp_path / "a.pt.part.version").write_text('"v1"')
    assert fetch(remote(server), tmp_path / "a.pt", limits=QUICK).read_bytes() == CONTENT
    assert [request.status for request in server.requests] == [416, 200]


def test_a_server_that_ignores_range_starts_over(server: FileServer, tmp_path: Path) -> None:
    server.answers = [Answer(break_after=100_000), Answer(ignores_range=True)]
    assert fetch(remote(server), tmp_path / "a.pt", limits=QUICK).read_bytes() == CONTENT
    assert [request.status for request in server.requests] == [200, 200]


@pytest.mark.parametrize("honours_if_range", [True, False])
def test_a_file_that_changed_between_attempts_is_never_mixed(
    server: FileServer, tmp_path: Path, honours_if_range: bool
) -> None:
    old = bytes(len(CONTENT))
    server.answers = [
        Answer(break_after=100_000, content=old, etag='"v0"'),
        Answer(honours_if_range=honours_if_range),
    ]
    assert fetch(unknown(server), tmp_path / "a.pt", limits=QUICK).read_bytes() == CONTENT


def test_a_server_without_any_version_is_never_resumed(server: FileServer, tmp_path: Path) -> None:
    server.answers = [Answer(break_after=100_000, etag=""), Answer(etag="")]
    assert fetch(remote(server), tmp_path / "a.pt", limits=QUICK).read_bytes() == CONTENT
    assert [request.range_start for request in server.requests] == [None, None]


def test_a_weak_etag_does_not_count_but_the_date_does(server: FileServer, tmp_path: Path) -> None:
    date = "Tue, 01 Oct 2024 00:00:00 GMT"
    server.answers = [Answer(break_after=100_000, etag='W/"v1"', date=date), Answer(etag=date)]
    assert fetch(remote(server), tmp_path / "a.pt", limits=QUICK).read_bytes() == CONTENT
    assert server.requests[1].if_range == date


def test_a_resumption_at_another_place_is_refused_and_begun_anew(server: FileServer, tmp_path: Path) -> None:
    server.answers = [Answer(break_after=100_000), Answer(shifts_range_by=7)]
    assert fetch(remote(server), tmp_path / "a.pt", limits=QUICK).read_bytes() == CONTENT
    assert [request.range_start for request in server.requests] == [None, 100_000, None]


def test_attempts_that_bring_something_new_are_not_counted(server: FileServer, tmp_path: Path) -> None:
    server.answers = [Answer(break_after=40_000)] * 6
    assert fetch(remote(server), tmp_path / "a.pt", limits=QUICK).read_bytes() == CONTENT
    assert len(server.requests) == 7


def test_endless_breaking_off_ends(server: FileServer, tmp_path: Path) -> None:
    server.answers = [Answer(break_after=100_000 - number % 2, etag=f'"v{number}"') for number in range(50)]
    with pytest.raises(DownloadError, match="gave up after 3 attempts"):
        fetch(remote(server), tmp_path / "a.pt", limits=QUICK)
    assert len(server.requests) == 3


def test_a_promise_of_another_length_is_refused_before_a_byte_is_kept(server: FileServer, tmp_path: Path) -> None:
    server.answers = [Answer(content=CONTENT[:-1])]
    with pytest.raises(DownloadError, match=r"announces 299999 bytes, expected 300000"):
        fetch(remote(server), tmp_path / "a.pt", limits=QUICK)
    assert len(server.requests) == 1 and names(tmp_path) == {"a.pt.lock"}


def test_less_than_promised_is_never_put_in_place(server: FileServer, tmp_path: Path) -> None:
    server.answers = [Answer(content=CONTENT[:1000], announces=len(CONTENT), ignores_range=True)] * 3
    with pytest.raises(DownloadError, match=r"broke off after 1000 of 300000 bytes"):
        fetch(unknown(server), tmp_path / "a.pt", limits=QUICK)
    assert not (tmp_path / "a.pt").exists()


def test_more_than_expected_is_refused(server: FileServer, tmp_path: Path) -> None:
    server.answers = [Answer(content=CONTENT * 10, announces=None)]
    seen: list[int] = []
    with pytest.raises(DownloadError, match=r"sends more than the 300000 bytes expected"):
        fetch(remote(server), tmp_path / "a.pt", progress=lambda here, _: seen.append(here), limits=QUICK)
    assert max(seen, default=0) <= len(CONTENT)
    assert names(tmp_path) == {"a.pt.lock"}


def test_an_unknown_length_is_refused(server: FileServer, tmp_path: Path) -> None:
    server.answers = [Answer(announces=None)]
    with pytest.raises(DownloadError, match="no Content-Length"):
        fetch(unknown(server), tmp_path / "a.pt", limits=QUICK)


def test_a_file_above_the_ceiling_is_refused(server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"300000 bytes, expected at most 1000"):
        fetch(unknown(server), tmp_path / "a.pt", limits=Limits(max_bytes=1000))


def test_a_file_larger_than_the_free_disk_is_refused(server: FileServer, tmp_path: Path) -> None:
    num_bytes = shutil.disk_usage(tmp_path).total * 2
    server.answers = [Answer(content=b"start", announces=num_bytes)]
    with pytest.raises(DownloadError, match=rf"bytes free, {num_bytes} are needed"):
        fetch(unknown(server), tmp_path / "a.pt", limits=Limits(max_bytes=1 << 62))


def test_a_web_page_is_not_kept(server: FileServer, tmp_path: Path) -> None:
    server.answers = [Answer(content=b"<html>please log in</html>", content_type="text/html; charset=utf-8")]
    with pytest.raises(DownloadError, match="answered with a web page, expected a checkpoint"):
        fetch(remote(server), tmp_path / "a.pt", limits=QUICK)
    assert len(server.requests) == 1 and names(tmp_path) == {"a.pt.lock"}


@pytest.mark.parametrize(("status", "num_requests"), [(404, 1), (403, 1), (503, 3), (429, 3)])
def test_a_refusal_is_final_or_passing_by_its_kind(
    server: FileServer, tmp_path: Path, status: int, num_requests: int
) -> None:
    server.answers = [Answer(status=status)] * 3
    with pytest.raises(DownloadError, match=str(status)):
        fetch(remote(server), tmp_path / "a.pt", limits=QUICK)
    assert len(server.requests) == num_requests


def test_a_passing_trouble_passes(server: FileServer, tmp_path: Path) -> None:
    server.answers = [Answer(status=503), Answer(status=500)]
    assert fetch(remote(server), tmp_path / "a.pt", limits=QUICK).read_bytes() == CONTENT


def test_the_wrong_bytes_are_thrown_away_and_both_hashes_named(server: FileServer, tmp_path: Path) -> None:
    forged = bytes(len(CONTENT))
    server.answers = [Answer(content=forged)]
    with pytest.raises(DownloadError) as caught:
        fetch(remote(server), tmp_path / "a.pt", limits=QUICK)
    assert SHA256 in str(caught.value) and hashlib.sha256(forged).hexdigest() in str(caught.value)
    assert names(tmp_path) == {"a.pt.lock"}
    assert fetch(remote(server), tmp_path / "a.pt", limits=QUICK).read_bytes() == CONTENT


def test_a_server_that_never_answers_is_left(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url, start_ns = f"http://127.0.0.1:{silent.getsockname()[1]}/a.pt", time.monotonic_ns()
        with pytest.raises(DownloadError, match="timed out; gave up after 2 attempts"):
            fetch(RemoteFile(url), tmp_path / "a.pt", limits=Limits(timeout_s=0.2, num_attempts=2, backoff_s=0.01))
        assert time.monotonic_ns() - start_ns < 3_000_000_000


def test_a_server_that_falls_silent_is_left_and_resumed(server: FileServer, tmp_path: Path) -> None:
    server.answers = [Answer(silent_after=100_000)]
    limits = Limits(timeout_s=0.3, num_attempts=2, backoff_s=0.01)
    assert fetch(remote(server), tmp_path / "a.pt", limits=limits).read_bytes() == CONTENT
    assert server.requests[1].range_start == 100_000


def test_nobody_there_says_so(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(DownloadError, match=r"Connection refused; gave up after 3 attempts"):
        fetch(RemoteFile(f"http://127.0.0.1:{port}/a.pt"), tmp_path / "a.pt", limits=QUICK)


@pytest.mark.parametrize("url", ["http://example.org/a.pt", "ftp://127.0.0.1/a.pt", "file:///etc/passwd", "a.pt", ""])
def test_only_https_leaves_this_machine(url: str, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="https://"):
        fetch(RemoteFile(url), tmp_path / "a.pt", limits=QUICK)


def test_a_redirect_is_followed_but_not_to_an_unsafe_address(server: FileServer, tmp_path: Path) -> None:
    server.answers = [Answer(status=302, location=server.url)]
    assert fetch(remote(server), tmp_path / "a.pt", limits=QUICK).read_bytes() == CONTENT
    for number, location in enumerate(["http://example.org/a.pt", "ftp://example.org/a.pt"]):
        server.answers = [Answer(status=302, location=location)]
        with pytest.raises(DownloadError, match=re.escape(location)):
            fetch(remote(server), tmp_path / f"{number}.pt", limits=QUICK)


def test_threads_that_ask_at_once_download_once(server: FileServer, tmp_path: Path) -> None:
    server.answers = [Answer(break_after=100_000)]
    paths: list[Path] = []
    ask = [threading.Thread(target=lambda: paths.append(fetch(remote(server), tmp_path / "a.pt"))) for _ in range(4)]
    for thread in ask:
        thread.start()
    for thread in ask:
        thread.join(20)
    assert paths == [tmp_path / "a.pt"] * 4 and paths[0].read_bytes() == CONTENT
    assert len(server.requests) == 2, "one broken attempt and one resumption, by one of the four"


def test_processes_that_ask_at_once_download_once(server: FileServer, tmp_path: Path) -> None:
    server.answers = [Answer(silent_after=100_000)]
    limits = Limits(timeout_s=0.5, num_attempts=2, backoff_s=0.01)
    context = multiprocessing.get_context("spawn")
    ask = [
        context.Process(target=fetch, args=(remote(server), tmp_path / "a.pt"), kwargs={"limits": limits})
        for _ in range(2)
    ]
    for process in ask:
        process.start()
    for process in ask:
        process.join(30)
    assert [process.exitcode for process in ask] == [0, 0]
    assert (tmp_path / "a.pt").read_bytes() == CONTENT and len(server.requests) == 2


def test_a_folder_that_cannot_be_written_is_named(server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"missing.*No such file"):
        fetch(remote(server), tmp_path / "missing" / "a.pt", limits=QUICK)
    (tmp_path / "a.pt.part").mkdir()
    with pytest.raises(DownloadError, match=r"a\.pt\.part"):
        fetch(remote(server), tmp_path / "a.pt", limits=QUICK)
    assert len(server.requests) <= 1, "trouble with our own disk is not retried"


def test_a_tampered_file_is_found_by_the_pinned_and_by_the_recorded_hash(server: FileServer, tmp_path: Path) -> None:
    target = fetch(unknown(server), tmp_path / "a.pt", limits=QUICK)
    verify(target, None)
    verify(target, SHA256)
    target.write_bytes(CONTENT[:-1] + b"!")
    digest = hashlib.sha256(CONTENT[:-1] + b"!").hexdigest()
    with pytest.raises(DownloadError, match=rf"{digest}, expected {SHA256} \(recorded in a\.pt\.sha256\)"):
        verify(target, None)
    with pytest.raises(DownloadError, match=rf"{digest}, expected {SHA256} \(pinned in this release\)"):
        verify(target, SHA256)
    with pytest.raises(DownloadError, match="pinned"):
        fetch(remote(server), target, limits=QUICK)
