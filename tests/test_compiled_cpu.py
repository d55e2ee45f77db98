"""The backend `compiled` on a CPU computes what eager does, and keeps its scratch."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from pocket import pocket_network
from torch import Tensor

from engines.compiled import compiled_engine
from engines.compiled.cpu_attention import Chunked
from engines.compiled.cpu_attention32 import Sliced32
from engines.compiled.cpu_linear import can_fuse
from engines.eager import EagerEngine
from engines.graphs import FlatEncode, FlatTrack, track_inputs
from engines.spec import Engine, FrameFeatures, MemoryRead, PointPrompt

CPU = torch.device("cpu")
NUM_FRAMES = 2
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 0.05}


@pytest.fixture(autouse=True)
def same_numbers_every_time() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def both(dtype: torch.dtype) -> tuple[Engine, Engine]:
    network = pocket_network(seed=4)
    reference = EagerEngine(network, name="pocket", device=CPU, dtype=torch.float32)
    return reference, compiled_engine(network, name="pocket", device=CPU, dtype=dtype)


def memory_of(engine: Engine, *, rows: int, num_cond: int = 1, length: int = 99) -> MemoryRead:
    """A bank after `length` tracked frames; full by default."""
    spec, random = engine.spec, torch.Generator().manual_seed(length + num_cond)
    recent, pointers = min(length, spec.num_recent_memories), min(length, spec.num_recent_pointers) + num_cond
    times = torch.tensor([6] * num_cond + list(range(recent))).expand(rows, -1)
    memory = torch.randn(rows, num_cond + recent, spec.num_tokens, spec.memory_dim, generator=random)
    return MemoryRead(
        memory.to(engine.memory_dtype),
        times,
        torch.randn(rows, pointers, spec.hidden_dim, generator=random),
        torch.randn(rows, pointers, spec.hidden_dim, generator=random),
    )


def frames_of(engine: Engine) -> FrameFeatures:
    size = engine.spec.image_size
    return engine.encode(torch.randn(NUM_FRAMES, 3, size, size, generator=torch.Generator().manual_seed(1)))


def assert_close(wanted: Tensor, found: Tensor, tolerance: float) -> None:
    error = (found.float() - wanted.float()).abs().max() / wanted.float().abs().max()
    assert error <= tolerance, f"differs by {error:.2e} of the maximum"


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_frames_are_encoded_as_by_eager(dtype: torch.dtype) -> None:
    reference, engine = both(dtype)
    for wanted, found in zip(frames_of(reference), frames_of(engine), strict=True):
        assert found.dtype is dtype
        assert wanted.shape == found.shape
        assert_close(wanted, found, TOLERANCES[dtype])


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize(("num_cond", "length"), [(1, 0), (1, 1), (2, 3), (1, 7), (1, 99), (2, 99)])
def test_a_bank_of_any_length_is_tracked_as_by_eager(dtype: torch.dtype, num_cond: int, length: int) -> None:
    reference, engine = both(dtype)
    row_frame_b = torch.tensor([1, 0, 1])
    read = memory_of(reference, rows=3, num_cond=num_cond, length=length)
    wanted, wanted_features = reference.track(frames_of(reference), row_frame_b, read)
    found, found_features = engine.track(frames_of(engine), row_frame_b, read)
    assert_close(wanted_features, found_features, TOLERANCES[dtype])
    for one, other in zip(wanted, found, strict=True):
        assert one.shape == other.shape
        assert_close(one, other, TOLERANCES[dtype])


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_prompts_are_decoded_as_by_eager(dtype: torch.dtype) -> None:
    """Both on eager's features in the same dtype: a prompt's memory is made of a binary mask, so that a last bit can
    become a pixel.
    """
    _, engine = both(dtype)
    reference = EagerEngine(pocket_network(seed=4), name="pocket", device=CPU, dtype=dtype)
    prompt = PointPrompt(torch.tensor([[[20.0, 30.0]]]), torch.ones(1, 1, dtype=torch.int32), None)
    mask = torch.zeros(1, reference.spec.image_size, reference.spec.image_size)
    mask[:, 10:40, 20:50] = 1
    one = FrameFeatures(*(x[:1] for x in frames_of(reference)))
    results = [(*each.prompt_points(one, prompt, None), *each.prompt_mask(one, mask)) for each in (reference, engine)]
    for wanted, found in zip(*results, strict=True):
        assert_close(wanted, found, TOLERANCES[dtype])


SHAPES = [(1, 1, 7, 5, 8, 8), (3, 2, 16, 64, 12, 12), (2, 1, 100, 333, 32, 8), (5, 4, 1, 9, 16, 16)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("num_scores", [400, 2**12, 2**20])
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_slices_of_any_size_are_one_softmax(shape: tuple[int, ...], num_scores: int, dtype: torch.dtype) -> None:
    """Even where the scratch is full of infinities: nothing outside a slice has a part in it."""
    batch, heads, num, num_keys, width, narrow = shape
    query, key, value = (torch.randn(batch, x, heads, width).to(dtype) for x in (num, num_keys, num_keys))
    kernel = Chunked(dtype, num_scores)
    kernel._scores.fill_(torch.inf)
    query, key, value = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)[..., :narrow]
    wanted = F.scaled_dot_product_attention(query.double(), key.double(), value.double())
    found = kernel(query, key, value)
    assert found.shape == wanted.shape
    assert_close(wanted, found, {torch.float32: 1e-5, torch.bfloat16: 0.02}[dtype])


@pytest.mark.skipif(not can_fuse(torch.float32), reason="this build of torch has no oneDNN")
@pytest.mark.parametrize("shape", [*SHAPES, (1, 2, 300, 300, 16, 16), (2, 1, 700, 120, 16, 4)], ids=str)
@pytest.mark.parametrize("num_scores", [400, 2**12, 2**20])
def test_float32_slices_of_any_size_are_one_softmax(
    shape: tuple[int, ...], num_scores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, heads, num, num_keys, width, narrow = shape
    monkeypatch.setattr("engines.compiled.cpu_attention32.NUM_SCORES", num_scores)
    monkeypatch.setattr("engines.compiled.cpu_attention32.SMALL", 0)
    query, key, value = (torch.randn(batch, x, heads, width).transpose(1, 2) for x in (num, num_keys, num_keys))
    wanted = F.scaled_dot_product_attention(query.double(), key.double(), value.double())
    assert_close(wanted[..., :narrow], Sliced32()(query, key, value[..., :narrow]), 1e-5)


def test_keys_that_nothing_looks_at_change_nothing_and_a_padded_zero_does() -> None:
    """Why no length is padded: a key of zeros has a share in every softmax."""
    query, key, value = torch.randn(1, 1, 6, 8), torch.randn(1, 1, 20, 8), torch.randn(1, 1, 20, 8)
    kernel = Chunked(torch.float32, 400)
    wanted = kernel(query, key, value)
    padded = kernel(query, F.pad(key, (0, 0, 0, 5)), F.pad(value, (0, 0, 0, 5)))
    assert_close(wanted, kernel(query, key, value), 0.0)
    assert (padded - wanted).abs().max() > 1e-2


def test_scores_and_keys_live_in_one_scratch_for_good() -> None:
    _, engine = both(torch.bfloat16)
    frames, read = frames_of(engine), memory_of(engine, rows=2)
    attend = engine.track_module.attend  # type: ignore[attr-defined]
    kernel = attend.cross[0].kernel
    engine.track(frames, torch.tensor([0, 1]), read)
    before = (kernel._scores.data_ptr(), kernel._scores.numel(), attend._keys.data_ptr(), attend._keys.numel())
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        for _ in range(5):
            engine.track(frames, torch.tensor([0, 1]), read)
            engine.track(frames, torch.tensor([0]), memory_of(engine, rows=1, length=2))
    after = (kernel._scores.data_ptr(), kernel._scores.numel(), attend._keys.data_ptr(), attend._keys.numel())
    assert after == before
    softmax = [event for event in profile.events() if event.name == "aten::_softmax" or event.name == "aten::softmax"]
    assert all(event.cpu_memory_usage == 0 for event in softmax)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float16], ids=str)
def test_a_processor_without_the_products_gets_eagers_forms(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engines.compiled.cpu.can_fuse", lambda _: False)
    engine = compiled_engine(pocket_network(seed=4), name="pocket", device=CPU, dtype=dtype)
    reference = EagerEngine(pocket_network(seed=4), name="pocket", device=CPU, dtype=dtype)
    for wanted, found in zip(frames_of(reference), frames_of(engine), strict=True):
        assert_close(wanted, found, {torch.float32: 1e-5}.get(dtype, 0.02))


@pytest.mark.parametrize("program", ["encode", "track"])
def test_the_programs_that_eager_has_stay_exportable(program: str) -> None:
    """`compiled` makes its forms of them, and leaves what TensorRT is given alone."""
    reference, _ = both(torch.float32)
    assert isinstance(reference, EagerEngine)
    if program == "encode":
        module, inputs = FlatEncode(reference.encode_module), (torch.randn(1, 3, 64, 64),)
    else:
        track = reference.track_module
        frames, read = frames_of(reference), memory_of(reference, rows=1)
        read = read._replace(memory_bmnc=read.memory_bmnc.float())
        inputs = track_inputs(frames, torch.tensor([0]), read, sparse_1sc=track.sparse_1sc)
        inputs, module = tuple(x.clone() for x in inputs), FlatTrack(track)
    with torch.no_grad():
        exported = torch.export.export(module, inputs)
    names = {str(node.target) for node in exported.graph.nodes if node.op == "call_function"}
    assert not [name for name in names if not name.startswith("aten.") and "getitem" not in name], "operators of oneDNN"


def test_status_can_tell_it_from_eager() -> None:
    reference, engine = both(torch.bfloat16)
    assert (reference.backend, engine.backend) == ("eager", "compiled")
    assert engine.attention_dtype is torch.bfloat16
