"""A network that fails: lost packets and a pulled cable, in network namespaces; on a machine without, in the relay."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from faults.conftest import Record, World
from faults.lab import Lab
from faults.network import Network, NoNetwork, network
from faults.record import Row
from faults.relay import Relay
from faults.scene import RATE

PERCENT = 5
SECONDS = 8.0
# A picture of three or four packets: of larger ones hardly any would arrive whole.
SETTINGS = {f"/{name}": {"offset": offset, "gop": 5, "kbps": 250} for name, offset in (("udp", 2000), ("tcp", 3000))}


@pytest.fixture(scope="module")
def wire() -> Iterator[Network | str]:
    """A network of our own, or why there is none."""
    try:
        context = network()
        made = context.__enter__()
    except NoNetwork as why:
        yield str(why)
        return
    yield made
    context.__exit__(None, None, None)


@dataclass(frozen=True)
class Link:
    """Cameras behind a bad wire, by the transport that their pictures take, and the two things it can do."""

    urls: dict[str, str]
    lose: Callable[[int], None]
    num_lost: Callable[[], int]
    note: str = ""


@pytest.fixture
def link(lab: Lab, world: World, wire: Network | str) -> Iterator[Link]:
    """Through the kernel where it has namespaces, else through a relay that leaves out RTP packets."""
    if isinstance(wire, Network):
        with world.cameras(SETTINGS, host=wire.camera_host, prefix=wire.prefix) as server:
            urls = {name: server.url(f"/{name}") for name in ("udp", "tcp")}
            yield Link(urls, wire.lose, wire.num_lost)
            wire.lose(0)
    else:
        with world.cameras(SETTINGS) as server, Relay(server.port) as relay:
            urls = {"udp": relay.url("/udp")}
            yield Link(
                urls,
                lambda percent: relay.set(loss=percent / 100),
                lambda: relay.num_lost,
                "RTP packets left out by a relay",
            )
    lab.drop("udp", "tcp")


def watch(lab: Lab, link: Link) -> float:
    for name, url in link.urls.items():
        transport = "tcp" if link.note else name
        offset = SETTINGS[f"/{name}"]["offset"]
        lab.describe(name, url, offset=offset, rtsp_transport=transport)
    before_s = time.monotonic()
    lab.reload()
    return max(lab.witness.next(name, before_s, num=10)[0].masks.arrival_ns / 1e9 for name in link.urls)


def test_lost_packets_smear_nothing(lab: Lab, link: Link, record: Record) -> None:
    start_s = watch(lab, link)
    link.lose(PERCENT)
    lossy_s = time.monotonic()
    time.sleep(SECONDS)
    for name in link.urls:
        lab.witness.next(name, lossy_s, num=3 if name == "udp" else 10, limit_s=40)
    num_packets = link.num_lost()
    link.lose(0)
    whole_s = time.monotonic()
    assert num_packets > 10, "packets were really lost"
    for name in link.urls:
        recovered_s = lab.witness.next(name, whole_s, num=10)[0].received_s - whole_s
        lab.check(name, start_s)
        assert "offline" not in {str(state.condition) for when_s, state in lab.witness.states[name] if when_s > lossy_s}
        lost = round((whole_s - lossy_s) * RATE) - len(lab.witness.seen(name, lossy_s, whole_s))
        promise = "no smeared picture has masks: after a loss, none until the next key frame (here 0.5 s)"
        promise = promise if name == "udp" else "no picture is damaged, TCP sends again"
        how = link.note or f"RTSP over {name.upper()}"
        fault = f"{PERCENT} % packet loss for {whole_s - lossy_s:.0f} s, {how}"
        record(Row(fault, promise, recovered_s, lost), lab.check_others(start_s))


def test_a_pulled_cable_is_survived(lab: Lab, link: Link, wire: Network | str, record: Record) -> None:
    if not isinstance(wire, Network):
        pytest.skip(f"a cable needs network namespaces ({wire}); half-open TCP is tested without")
    start_s = watch(lab, link)
    wire.pull()
    time.sleep(4.0)
    wire.plug()
    back_s = time.monotonic()
    for name in link.urls:
        recovered_s = lab.witness.next(name, back_s, num=10, limit_s=60)[0].received_s - back_s
        assert len({item.masks.epoch for item in lab.witness.seen(name, start_s)}) == 1
        lab.check(name, start_s)
        promise = "found again at the next try, memory kept"
        row = Row(f"cable pulled for 4 s, RTSP over {name.upper()}", promise, recovered_s, lab.num_lost(name, back_s))
        record(row, lab.check_others(start_s))
