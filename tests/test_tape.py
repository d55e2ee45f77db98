"""How CUDA graphs are made, against a stand-in for CUDA's streams and graphs that takes the signatures of torch's own;
what a recording computes is tested in test_cuda_step.py.
"""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch

from engines.tape import NUM_WARM_UPS, CudaRecorder

REAL_GRAPH = inspect.signature(torch.cuda.graph)


class FakeCuda:
    """`log` has, in order, what was asked of the device, and on which stream work was done."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log: list[str] = []
        self.fails = False
        self.current = FakeStream(self, "main")
        self.num_streams = self.num_pools = 0
        for name in ("Stream", "current_stream", "set_stream", "stream", "graph", "graph_pool_handle", "CUDAGraph"):
            assert hasattr(torch.cuda, name), "torch has it"
            monkeypatch.setattr(torch.cuda, name, getattr(self, name))

    def Stream(self, device: torch.device) -> FakeStream:
        self.num_streams += 1
        return FakeStream(self, f"side{self.num_streams}")

    def current_stream(self, device: torch.device) -> FakeStream:
        return self.current

    def set_stream(self, stream: FakeStream) -> None:
        self.current = stream

    def stream(self, stream: FakeStream) -> _On:
        return _On(self, stream)

    def graph_pool_handle(self) -> tuple[int, int]:
        self.num_pools += 1
        return (0, self.num_pools)

    def CUDAGraph(self) -> FakeGraph:
        return FakeGraph(self)

    def graph(self, *args: Any, **kwargs: Any) -> _Capture:
        given = REAL_GRAPH.bind(*args, **kwargs).arguments
        self.log.append(f"capture {given['capture_error_mode']} pool {given['pool']}")
        return _Capture(self, given["stream"])


class FakeStream:
    def __init__(self, cuda: FakeCuda, name: str) -> None:
        self.cuda, self.name = cuda, name

    def wait_stream(self, other: FakeStream) -> None:
        self.cuda.log.append(f"{self.name} waits for {other.name}")

    def synchronize(self) -> None:
        self.cuda.log.append(f"host waits for {self.name}")


class FakeGraph:
    def __init__(self, cuda: FakeCuda) -> None:
        self.cuda = cuda

    def replay(self) -> None:
        self.cuda.log.append(f"replay on {self.cuda.current.name}")


class _On:
    def __init__(self, cuda: FakeCuda, stream: FakeStream) -> None:
        self.cuda, self.stream, self.before = cuda, stream, cuda.current

    def __enter__(self) -> None:
        self.cuda.current = self.stream

    def __exit__(self, *_: object) -> None:
        self.cuda.current = self.before


class _Capture(_On):
    """As torch does it: where the capture fails, its end raises, and the stream is left as it is."""

    def __exit__(self, *_: object) -> None:
        if self.cuda.fails:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")
        super().__exit__()


def test_a_graph_is_warmed_up_and_captured_on_one_stream_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda(monkeypatch)
    recorder = CudaRecorder(torch.device("cuda"))
    tapes = [recorder.record(lambda: cuda.log.append(f"work on {cuda.current.name}")) for _ in range(2)]
    one = ["side1 waits for main", *["work on side1"] * NUM_WARM_UPS, "host waits for side1",
           "capture thread_local pool (0, 1)", "work on side1", "main waits for side1"]  # fmt: skip
    assert cuda.log == one * 2, "both graphs share the stream and the memory"
    tapes[0].play()
    assert cuda.log[-1] == "replay on main" and not recorder.is_recording


def test_a_capture_that_fails_leaves_the_stream_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda(monkeypatch)
    cuda.fails = True
    recorder, main = CudaRecorder(torch.device("cuda")), cuda.current
    with pytest.raises(RuntimeError, match="during capture"):
        recorder.record(lambda: None)
    assert cuda.current is main and not recorder.is_recording


def test_warm_ups_count_as_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a program inside would make a graph of its own first."""
    FakeCuda(monkeypatch)
    recorder, seen = CudaRecorder(torch.device("cuda")), []
    recorder.record(lambda: seen.append(recorder.is_recording))
    assert seen == [True] * (NUM_WARM_UPS + 1)
