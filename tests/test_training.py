"""Training: the roll-out is SAM 2's own, the losses teach what they promise, and a checkpoint comes back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engines.training.architecture import untrained
from engines.training.course import COURSE, Stage
from engines.training.live import LENGTHS, Field
from engines.training.loop import draw_plan, learned, rate_of, run_course, train_step
from engines.training.losses import HIDDEN_WEIGHT, PROMPTED_WEIGHT, frame_loss, mask_iou, mask_loss
from engines.training.prompts import BOX_HIGH, BOX_LOW, NEGATIVE, POSITIVE, Prompt, correction, draw_prompt
from engines.training.rollout import ClipRunner, Fresh, Plan
from engines.training.samples import Batch, LiveClips, Recipe, draw_batch
from engines.training.trainer import Trainer, export_checkpoint, stage_of
from engines.weights import load_state_dict

SIZE = 64


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    return untrained("nano", SIZE)


@pytest.fixture(scope="module")
def clips() -> Batch:
    return draw_batch(np.random.default_rng(0), Recipe(SIZE, num_clips=2, num_frames=4, num_objects=2))


def visible(batch: Batch) -> torch.Tensor:
    return batch.masks_bnthw.flatten(0, 1)


def square(size: int = 16) -> torch.Tensor:
    truth = torch.zeros(1, 1, size, size)
    truth[..., 4:12, 4:12] = 1
    return truth


def test_stills_come_two_to_a_scene_and_clips_keep_their_order() -> None:
    stills = draw_batch(np.random.default_rng(1), Recipe(SIZE, num_clips=4, num_frames=1, num_objects=3))
    assert stills.frames_btchw.shape == (4, 1, 3, SIZE, SIZE) and stills.masks_bnthw.shape == (4, 3, 1, SIZE, SIZE)
    again = draw_batch(np.random.default_rng(1), Recipe(SIZE, num_clips=4, num_frames=1, num_objects=3))
    torch.testing.assert_close(stills.frames_btchw, again.frames_btchw, rtol=0, atol=0)


def test_some_clips_are_interrupted_by_a_scene_without_their_objects() -> None:
    rng, interrupted = np.random.default_rng(0), 0
    for _ in range(8):
        batch = draw_batch(rng, Recipe(SIZE, num_clips=2, num_frames=3, num_objects=2))
        empty = batch.masks_bnthw.sum((1, 3, 4)) == 0
        assert not empty[:, 0].any()
        for clip, t in empty.nonzero().tolist():
            if not empty[1 - clip, t]:
                torch.testing.assert_close(batch.frames_btchw[clip, t], batch.frames_btchw[1 - clip, t], rtol=0, atol=0)
            interrupted += 1
    assert 2 <= interrupted <= 16


def test_a_few_steps_on_one_batch_reduce_the_loss(model: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    batch = draw_batch(np.random.default_rng(2), Recipe(SIZE, num_clips=4, num_frames=1, num_objects=2))
    trainer = Trainer(model, tmp_path, peak_rate=1e-3)
    losses = []
    for _ in range(12):
        loss, _ = train_step(model, batch, np.random.default_rng(0))
        trainer.update(loss, rate=1e-3)
        losses.append(loss.item())
    assert np.mean(losses[-3:]) < 0.75 * losses[0]


def test_the_roll_out_remembers_what_the_official_step_remembers(model: Any, clips: Batch) -> None:
    truth = visible(clips)[::2]
    prompt = draw_prompt(np.random.default_rng(0), truth[:, 0], "click")
    with torch.no_grad():
        runner = ClipRunner(model, clips.frames_btchw, torch.arange(2))
        runner.run(truth, Plan(prompt))
        official: dict[str, dict[int, Any]] = {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}
        for t in range(4):
            _, features, positions, sizes = model._prepare_backbone_features(
                model.forward_image(clips.frames_btchw[:, t])
            )
            points = {"point_coords": prompt.points_np2, "point_labels": prompt.labels_np} if t == 0 else None
            out = model.track_step(t, t == 0, features, positions, sizes, points, None, official, 10_000)
            official["cond_frame_outputs" if t == 0 else "non_cond_frame_outputs"][t] = out
    for kind, frames in official.items():
        assert runner._memory[kind].keys() == frames.keys()
        for t, out in frames.items():
            for name in ("maskmem_features", "obj_ptr"):
                torch.testing.assert_close(runner._memory[kind][t][name], out[name], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("num_unlearned", [0, 2])
def test_every_part_of_the_memory_learns(model: Any, clips: Batch, num_unlearned: int) -> None:
    truth = visible(clips)[::2]
    plan = Plan(draw_prompt(np.random.default_rng(0), truth[:, 0], "click"), num_unlearned=num_unlearned)
    with torch.autocast("cpu", torch.bfloat16):
        loss = ClipRunner(model, clips.frames_btchw, torch.arange(2)).run(truth, plan)
    loss.backward()  # type: ignore[no-untyped-call]
    parts = ("image_encoder.trunk", "memory_attention", "memory_encoder", "maskmem_tpos_enc", "obj_ptr_proj")
    for name, parameter in model.named_parameters():
        if name.startswith(parts) and not name.endswith("k_proj.bias"):  # softmax does not see a key's bias
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(
    "changes",
    [{"corrected_frame": 0}, {"corrected_frame": 2}, {"mask_frame": 2}, {"num_unlearned": 2, "corrected_frame": 1}],
    ids=str,
)
def test_every_plan_runs_and_scores_the_learned_frames(model: Any, clips: Batch, changes: dict[str, int]) -> None:
    for kind in ("click", "box", "mask"):
        plan = Plan(draw_prompt(np.random.default_rng(0), visible(clips)[:, 0], kind), **changes)
        runner = ClipRunner(model, clips.frames_btchw, torch.arange(2).repeat_interleave(2))
        with torch.no_grad():
            assert torch.isfinite(runner.run(visible(clips), plan))
        given = {0} if kind == "mask" else set()
        given |= {changes["mask_frame"]} if "mask_frame" in changes else set()
        assert len(runner.ious) == 4 - len(given | set(range(changes.get("num_unlearned", 0))))


def test_processes_draw_the_same_plan_with_different_clicks() -> None:
    truth = torch.zeros(2, 8, SIZE, SIZE)
    truth[..., 10:50, 10:50] = 1
    plans = [[draw_plan(rng, truth, rank=rank) for _ in range(20)] for rank, rng in enumerate(map(generator, (5, 5)))]
    for one, other in zip(*plans, strict=True):
        assert (one.num_unlearned, one.corrected_frame, one.mask_frame) == (
            other.num_unlearned,
            other.corrected_frame,
            other.mask_frame,
        )
        assert one.prompt.labels_np.shape == other.prompt.labels_np.shape
    assert any(not torch.equal(a.prompt.points_np2, b.prompt.points_np2) for a, b in zip(*plans, strict=True))


def generator(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_a_perfect_mask_costs_nothing_and_a_wrong_one_does() -> None:
    truth = square()
    assert mask_loss(40 * truth - 20, truth).item() < 0.01
    assert mask_loss(20 - 40 * truth, truth).item() > 5


def test_iou_counts_an_empty_answer_to_a_hidden_object_as_right() -> None:
    empty = torch.zeros(1, 1, 8, 8)
    assert mask_iou(empty - 1, empty).item() == 1
    assert mask_iou(empty + 1, empty).item() == 0


def test_only_the_best_of_three_masks_and_the_single_mask_learn() -> None:
    truth = square(64)
    logits = torch.zeros(1, 4, 16, 16)
    logits[:, 2] = 2 * torch.nn.functional.interpolate(truth, (16, 16), mode="area")[:, 0] - 1
    logits.requires_grad_(True)
    frame_loss(logits, torch.rand(1, 4), torch.zeros(1, 1), truth_n1hw=truth).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    taught = [bool(logits.grad[0, mask].abs().sum() > 0) for mask in range(4)]
    assert taught == [True, False, True, False]


def test_a_hidden_object_teaches_only_the_score() -> None:
    logits, ious = torch.randn(1, 4, 16, 16, requires_grad=True), torch.rand(1, 4, requires_grad=True)
    scores = torch.zeros(1, 1, requires_grad=True)
    frame_loss(logits, ious, scores, truth_n1hw=torch.zeros(1, 1, 64, 64)).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None and ious.grad is not None and scores.grad is not None
    assert logits.grad.abs().sum() == 0 and ious.grad.abs().sum() == 0 and scores.grad.abs().sum() > 0


def test_prompts_point_at_the_object() -> None:
    truth = square(64)[0]
    click = draw_prompt(np.random.default_rng(0), truth, "click")
    x, y = click.points_np2[0, 0].int().tolist()
    assert truth[0, y, x] == 1 and click.labels_np.tolist() == [[POSITIVE]] and click.is_ambiguous
    box = draw_prompt(np.random.default_rng(0), truth, "box")
    assert box.labels_np.tolist() == [[BOX_LOW, BOX_HIGH]] and not box.is_ambiguous
    torch.testing.assert_close(box.points_np2[0], torch.tensor([[4.0, 4.0], [12.0, 12.0]]), rtol=0, atol=2)


def test_a_correction_clicks_the_largest_error() -> None:
    truth = square(64)
    first = Prompt(torch.tensor([[[5.0, 5.0]]]), torch.tensor([[POSITIVE]], dtype=torch.int32))
    missed = correction(first, torch.full((1, 1, 16, 16), -100.0), truth)
    x, y = missed.points_np2[0, 1].int().tolist()
    assert truth[0, 0, y, x] == 1 and missed.labels_np.tolist() == [[POSITIVE, POSITIVE]]
    assert missed.logits_n1hw is not None and missed.logits_n1hw.min() == -32
    spilled = correction(None, torch.full((1, 1, 16, 16), 100.0), truth)
    assert spilled.labels_np.tolist() == [[NEGATIVE]]
    assert correction(None, torch.full((1, 1, 16, 16), -1.0), 0 * truth).labels_np.tolist() == [[NEGATIVE]]


def test_a_training_state_comes_back_and_the_checkpoint_is_metas(model: Any, tmp_path: Path, clips: Batch) -> None:
    trainer = Trainer(model, tmp_path, peak_rate=1e-3)
    loss, _ = train_step(model, clips, np.random.default_rng(0))
    trainer.update(loss, rate=5e-4)
    trainer.save()
    other = Trainer(untrained("nano", 2 * SIZE), tmp_path, peak_rate=1e-3)
    other.resume(tmp_path / "state.pt")
    assert other.step == 1
    for name, value in trainer.average.items():
        torch.testing.assert_close(other.average[name], value, rtol=0, atol=0)
    export_checkpoint(trainer.average, tmp_path / "checkpoint.pt")
    state = load_state_dict(tmp_path / "checkpoint.pt")
    assert {value.dtype for value in state.values()} == {torch.float16}
    other.model.load_state_dict(state)
    torch.testing.assert_close(other.model.no_obj_ptr, trainer.average["no_obj_ptr"], rtol=1e-3, atol=1e-4)


def test_tracking_on_is_the_same_as_running_the_clip_at_once(model: Any, clips: Batch) -> None:
    truth = visible(clips)[::2]
    prompt = draw_prompt(np.random.default_rng(0), truth[:, 0], "click")
    with torch.no_grad():
        at_once = ClipRunner(model, clips.frames_btchw, torch.arange(2))
        at_once.run(truth, Plan(prompt))
        parts = ClipRunner(model, clips.frames_btchw[:, :2], torch.arange(2))
        parts.run(truth[:, :2], Plan(prompt))
        parts.go_on(clips.frames_btchw[:, 2:], truth[:, 2:], Plan(prompt))
    assert len(parts.ious) == 2
    for kind, frames in at_once._memory.items():
        assert parts._memory[kind].keys() == frames.keys()
        for t, entry in frames.items():
            for name in ("maskmem_features", "obj_ptr"):
                torch.testing.assert_close(parts._memory[kind][t][name], entry[name], rtol=1e-4, atol=1e-4)


def test_tracking_on_learns_from_its_frames_only(model: Any, clips: Batch) -> None:
    truth = visible(clips)[::2]
    prompt = draw_prompt(np.random.default_rng(0), truth[:, 0], "click")
    runner = ClipRunner(model, clips.frames_btchw[:, :2], torch.arange(2))
    runner.run(truth[:, :2], Plan(prompt))  # its graph is never used: going on must not reach back into it
    runner.go_on(clips.frames_btchw[:, 2:], truth[:, 2:], Plan(prompt)).backward()  # type: ignore[no-untyped-call]
    assert all(not entry["obj_ptr"].requires_grad for t, entry in _remembered(runner) if t < 2)
    gradient = model.memory_encoder.out_proj.weight.grad
    assert gradient is not None and gradient.abs().sum() > 0  # frame 3 learns from what frame 2 wrote


def _remembered(runner: ClipRunner) -> list[tuple[int, Any]]:
    return [item for frames in runner._memory.values() for item in frames.items()]


def test_a_fresh_prompt_is_answered_as_on_a_first_frame(model: Any, clips: Batch) -> None:
    truth, rows = visible(clips)[::2], torch.tensor([1])
    prompt = draw_prompt(np.random.default_rng(0), truth[:, 0], "click")
    last = draw_prompt(np.random.default_rng(1), truth[rows, -1], "click")
    with torch.no_grad():
        tracking = ClipRunner(model, clips.frames_btchw, torch.arange(2))
        tracking.run(truth, Plan(prompt, fresh=Fresh(last, rows)))
        still = ClipRunner(model, clips.frames_btchw[rows, -1:], torch.arange(1))
        still.run(truth[rows, -1:], Plan(last))
    assert tracking.fresh_ious is not None and len(tracking.losses) == 5
    torch.testing.assert_close(tracking.losses[-2], still.losses[0], rtol=1e-4, atol=1e-4)


def test_live_clips_show_every_frame_once_and_then_are_over() -> None:
    recipe = Recipe(SIZE, num_clips=2, num_frames=5, num_objects=2, hard_share=0.5)
    parts, whole = LiveClips(np.random.default_rng(5), recipe), LiveClips(np.random.default_rng(5), recipe)
    shown = []
    while not parts.is_over:
        shown.append(parts.take(2).frames_btchw)
    assert [frames.shape[1] for frames in shown] == [2, 2, 1]
    torch.testing.assert_close(torch.cat(shown, 1), whole.take(5).frames_btchw, rtol=0, atol=0)


def test_groups_take_turns_and_carry_their_memory(model: Any) -> None:
    field = Field(model, Recipe(SIZE, num_clips=1, num_frames=1, num_objects=2), np.random.default_rng(4))
    field._groups = field._groups[:2]
    with torch.no_grad():
        runners = [field.step()[1] for _ in range(40)]
    stills = [runner for runner in runners if runner._frames.shape[1] == 1]
    assert 8 <= len(stills) <= 24 and all(len(still._frames) == 2 for still in stills)  # twice as many scenes
    live = [runner for runner in runners if runner not in stills]
    steps = [sum(other is runner for other in live) for runner in dict.fromkeys(live)]
    assert len(steps) > 2 and max(steps) > 1  # short clips end soon, long ones go on
    assert max(steps) <= max(LENGTHS) // 2


def test_the_rate_warms_up_and_falls_to_the_stages_floor() -> None:
    stage = Stage("any", SIZE, 1, 1, 1e-3, 0.1, seed=0, steps=10)
    assert rate_of(stage, share=0, warm=0.5) == pytest.approx(5e-4)
    assert rate_of(stage, share=0, warm=9) == pytest.approx(1e-3)
    assert rate_of(stage, share=1, warm=9) == pytest.approx(1e-4)


def test_the_course_names_its_stages_once_and_every_stage_ends() -> None:
    assert len({stage.name for stage in COURSE}) == len(COURSE)
    assert all(stage.share(stage.steps, 0.0) == 1 and stage.steps > 0 for stage in COURSE)
    assert all(not stage.blend or stage.blend in {s.name for s in COURSE[:n]} for n, stage in enumerate(COURSE))


def test_a_course_goes_on_in_the_stage_where_it_stopped(tmp_path: Path) -> None:
    course = (
        Stage("stills", SIZE, 2, 1, 1e-4, 0.5, seed=1, steps=1, objects=1),
        Stage("live", SIZE, 1, 1, 1e-4, 0.5, seed=2, steps=2, live=True, objects=1),
    )
    told: list[str] = []

    class Stopped(Exception):
        """Stands for a kill."""

    def stop(stage: Stage, _: float) -> None:
        told.append(stage.name)
        if len(told) == 2:
            raise Stopped

    with pytest.raises(Stopped):
        run_course(tmp_path, course, told=stop)
    assert stage_of(tmp_path / "state.pt") == "stills"  # the second stage had not been saved yet
    checkpoint = run_course(tmp_path, course, told=lambda stage, _: told.append(stage.name))
    assert told == ["stills", "live", "live", "live"]
    assert load_state_dict(checkpoint).keys() == untrained("nano", SIZE).state_dict().keys()


def test_a_stage_can_begin_half_way_between_two_others(tmp_path: Path) -> None:
    course = tuple(
        Stage(name, SIZE, 2, 1, rate, 1.0, seed=1, steps=1, objects=1, blend=blend)
        for name, rate, blend in (("first", 1e-1, ""), ("second", 1e-1, ""), ("third", 0.0, "first"))
    )
    ends = []

    def told(stage: Stage, _: float) -> None:
        if stage.name == "third":
            ends.append(torch.load(tmp_path / "state.pt", weights_only=True)["average"])

    found = load_state_dict(run_course(tmp_path, course, told=told))
    first = torch.load(tmp_path / "first.pt", weights_only=True)
    assert any(not torch.equal(first[name], value) for name, value in ends[0].items())
    for name, value in ends[0].items():
        assert torch.allclose(found[name], ((first[name] + value) / 2).half()), name


def test_the_hidden_teach_the_score_most_and_the_prompted_least() -> None:
    masks, ious = torch.zeros(1, 4, 16, 16), torch.zeros(1, 4)

    def gradient(truth: torch.Tensor, *, is_prompted: bool) -> float:
        score = torch.zeros(1, 1, requires_grad=True)
        loss = frame_loss(masks, ious, score, truth_n1hw=truth, is_prompted=is_prompted)
        loss.backward()  # type: ignore[no-untyped-call]
        assert score.grad is not None
        return score.grad.item()

    seen, hidden = torch.ones(1, 1, 64, 64), torch.zeros(1, 1, 64, 64)
    assert gradient(seen, is_prompted=False) == pytest.approx(-0.5)
    assert gradient(hidden, is_prompted=False) == pytest.approx(0.5 * HIDDEN_WEIGHT)
    assert gradient(seen, is_prompted=True) == pytest.approx(-0.5 * PROMPTED_WEIGHT)


def test_going_on_draws_other_scenes(model: Any) -> None:
    stage = Stage("any", SIZE, 2, 1, 1e-3, 0.1, seed=0, steps=10, objects=1)
    with torch.no_grad():
        losses = [next(learned(model, stage, shelf=None, turn=turn))[0].item() for turn in (0, 0, 7)]
    assert losses[0] == losses[1] != losses[2]
