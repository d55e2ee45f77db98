"""The fastest engine that agrees with the reference is chosen, and everything else is said."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pocket import pocket_network
from torch import Tensor

from engines.eager import EagerEngine
from engines.spec import BackendMissing, Engine, FrameFeatures, MemoryRead, Segmentation
from stream.choose import NUM_RACED, Candidate, Choice, Referee, choose, within
from stream.verify import NUM_FRAMES


class Clock:
    """Time passes only where an engine says how long it takes."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


CLOCK = Clock()


@pytest.fixture(autouse=True)
def no_other_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("verify", "choose"):
        monkeypatch.setattr(f"stream.{module}.perf_counter", CLOCK)


class Pocket(EagerEngine):
    """The pocket model, with what goes wrong in it: it takes `step_s`, fails, or tells scores times `sign`."""

    def __init__(self, *, step_s: float = 0.01, sign: float = 1.0, fail: Exception | None = None) -> None:
        super().__init__(pocket_network(), name="pocket", device=torch.device("cpu"), dtype=torch.float32)
        self.step_s, self.sign, self.fail = step_s, sign, fail
        self.num_steps = 0

    def encode(self, frames_f3hw: Tensor) -> FrameFeatures:
        self.num_steps += 1
        CLOCK.now_s += self.step_s
        return super().encode(frames_f3hw)

    def track(self, frames: FrameFeatures, row_frame_b: Tensor, read: MemoryRead) -> tuple[Segmentation, Tensor]:
        if self.fail is not None:
            raise self.fail
        found, conditioned = super().track(frames, row_frame_b, read)
        return found._replace(scores_b=self.sign * found.scores_b), conditioned


def having(engine: Engine, backend: str = "compiled") -> Candidate:
    return Candidate(backend, lambda: engine)


def missing() -> Engine:
    raise BackendMissing("no TensorRT here; expected: pip install it\nand more")


@pytest.fixture(scope="module")
def referee() -> Referee:
    return Referee(Pocket, folder=None, key="pocket")


def told(choice: Choice) -> tuple[str, str]:
    """What was picked, and what was passed over."""
    picked, _, over = choice.text.partition("; passed over: ")
    return picked, over


def test_the_fastest_is_chosen_and_what_was_passed_over_is_said_with_its_reason(referee: Referee) -> None:
    slow, fast, last = Pocket(step_s=0.03), Pocket(), Pocket(step_s=0.03)
    candidates = [Candidate("tensorrt", missing), having(slow), having(fast, "fast"), having(last, "last")]
    choice = choose(candidates, referee)
    picked, over = told(choice)
    assert choice.engine is fast and choice.backend == "fast" and choice.refused == ()
    assert picked.startswith("fast, ") and "ms a step" in picked and f"on {NUM_FRAMES} frames" in picked
    assert over.startswith("tensorrt (no TensorRT here; expected: pip install it), compiled (3.00 times as long")
    assert "last (3.00 times" in over and "and more" not in choice.text and "\n" not in choice.text
    assert slow.num_steps == NUM_FRAMES and last.num_steps == NUM_RACED, "one that is behind is left"


def test_a_candidate_that_compiles_at_its_first_full_bank_is_not_taken_for_slow(referee: Referee) -> None:
    class Compiling(Pocket):
        """One step takes a second."""

        def encode(self, frames_f3hw: Tensor) -> FrameFeatures:
            CLOCK.now_s += 1.0 if self.num_steps == 16 else 0.0
            return super().encode(frames_f3hw)

    fast = Compiling(step_s=0.005)
    assert choose([having(Pocket()), having(fast, "fast")], referee).engine is fast


@pytest.mark.parametrize("step_s", [0.0096, 0.01, 0.0104])
def test_of_two_that_are_about_as_fast_the_first_stays(step_s: float, referee: Referee) -> None:
    first = Pocket()
    assert choose([having(first, "first"), having(Pocket(step_s=step_s), "second")], referee).engine is first


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: Pocket(sign=-1.0), "flip share"),
        (lambda: Pocket(fail=RuntimeError("enqueue failed")), "enqueue failed"),
        (lambda: Pocket(fail=torch.OutOfMemoryError("out of memory")), "out of memory"),
    ],
)
def test_what_is_wrong_or_fails_is_refused_by_name_and_the_next_is_taken(
    wrong: Callable[[], Engine], said: str, referee: Referee
) -> None:
    right = Pocket()
    choice = choose([having(wrong(), "tensorrt"), having(right)], referee)
    assert choice.engine is right and choice.refused == ("tensorrt",)
    assert "tensorrt (refused: " in told(choice)[1] and said in told(choice)[1]


def test_where_nothing_is_right_the_reference_itself_is_taken(referee: Referee) -> None:
    choice = choose([having(Pocket(sign=-1.0)), having(Pocket(sign=-1.0), "eager")], referee)
    assert choice.engine is referee.engine and choice.backend == "eager"
    assert choice.refused == ("compiled", "eager") and told(choice)[0] == "eager in fp32, the reference itself"


def test_a_lost_device_is_no_reason_to_try_the_next(referee: Referee) -> None:
    lost = Pocket(fail=RuntimeError("CUDA error: an illegal memory access was encountered"))
    with pytest.raises(RuntimeError, match="illegal memory access"):
        choose([having(lost), having(Pocket())], referee)


def test_a_bug_is_not_taken_for_a_refusal(referee: Referee) -> None:
    with pytest.raises(ZeroDivisionError):
        choose([having(Pocket(fail=ZeroDivisionError("a bug"))), having(Pocket())], referee)


def test_where_the_first_is_enough_no_other_is_opened(referee: Referee) -> None:
    first = Pocket()
    choice = choose([having(first), Candidate("eager", missing)], referee, is_first_enough=True)
    assert choice.engine is first and told(choice)[1] == "eager (not tried)"


def test_on_a_slow_machine_fewer_pictures_are_tracked_and_how_many_is_said() -> None:
    slow, last = Pocket(step_s=1.0), Pocket()
    referee = Referee(lambda: Pocket(step_s=2.0), folder=None, key="")
    choice = choose([having(slow), having(Pocket(step_s=10.0), "slower"), having(last, "last")], referee)
    assert "on 5 frames" in choice.text, "the reference took two to warm up, and three in six seconds"
    assert choice.engine is slow and slow.num_steps == 5
    assert "last (not tried)" in choice.text and last.num_steps == 0, "twenty seconds are enough"


def test_two_pictures_are_tracked_however_long_they_take() -> None:
    assert within(6.0)([100.0]) and not within(6.0)([1.0, 7.0])
    assert within(6.0)([100.0, 5.0]) and within(6.0)([100.0, 1.0, 2.0, 2.0]) and not within(6.0)([100.0, 1.0, 4.0])


def test_a_daemon_that_ends_waits_for_no_verdict_and_keeps_none(tmp_path: Path) -> None:
    steps: list[Pocket] = []

    def counted() -> Pocket:
        steps.append(Pocket())
        return steps[-1]

    def is_hurried() -> bool:
        return bool(steps) and steps[-1].num_steps >= 3

    referee = Referee(counted, folder=tmp_path, key="pocket", is_hurried=is_hurried)
    choice = choose([having(Pocket()), having(Pocket(), "eager")], referee)
    assert choice.engine is not None and sum(engine.num_steps for engine in steps) == 3
    assert not list(tmp_path.iterdir()), "half of the clip is no reference"


# --- the reference's results, from start to start --------------------------------------------------------------------


def forbidden() -> Engine:
    raise AssertionError("the reference was opened, although its results are known")


def test_a_second_start_needs_no_reference(tmp_path: Path) -> None:
    first = Referee(Pocket, folder=tmp_path / "verify", key="pocket")
    evidence = first.evidence
    second = Referee(forbidden, folder=tmp_path / "verify", key="pocket")
    assert (second.evidence.logits_tnhw == evidence.logits_tnhw).all()
    assert choose([having(Pocket())], second).backend == "compiled"
    with pytest.raises(AssertionError, match="was opened"):
        assert Referee(forbidden, folder=tmp_path / "verify", key="another").evidence


def test_a_damaged_file_is_told_and_made_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert Referee(Pocket, folder=tmp_path, key="pocket").evidence.num_frames == NUM_FRAMES
    [file] = tmp_path.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    with caplog.at_level(logging.WARNING):
        assert Referee(Pocket, folder=tmp_path, key="pocket").evidence.num_frames == NUM_FRAMES
    assert "computed anew" in caplog.text and len(file.read_bytes()) == len(whole)


def test_a_folder_that_cannot_be_written_is_told_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "verify").touch()
    with caplog.at_level(logging.WARNING):
        assert Referee(Pocket, folder=tmp_path / "verify", key="pocket").evidence.num_frames == NUM_FRAMES
    assert "not kept for the next start" in caplog.text
