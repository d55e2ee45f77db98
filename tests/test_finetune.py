"""Fine-tuning: it makes a model better at what it is bad at, goes on after an interruption as if there was none, and
what it leaves loads wherever the original does.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest
import torch
from official import official_predictor
from sam2.build_sam import _load_checkpoint, build_sam2_video_predictor
from stripes import draw_clip, write_davis
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from engines.build import EngineRequest
from engines.build.shelf import _weights_of
from engines.weights import CHECKPOINTS, build_model, load_state_dict
from stream.cli import main
from stream.evaluate import evaluate_tracker
from stream.finetune import Course, Division, FinetuneError, Progress, Report, Verdict, default_settings, find_clips
from stream.finetune.loop import Trainer, export
from stream.finetune.network import training_network
from stream.finetune.samples import VideoBatch, collate
from stream.tracker import Tracker

CPU = torch.device("cpu")
LEARNED, HELD_OUT = range(10), range(1000, 1004)
TINY: dict[str, Any] = {"batch": 1, "frames": 2, "objects": 1, "corrections": 1, "validation_pictures": 3}


@pytest.fixture(scope="module")
def stripes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of a look that nano does not know; `judges` are other clips of it."""
    root = tmp_path_factory.mktemp("stripes")
    write_davis(root / "data", LEARNED, 16)
    write_davis(root / "judges", HELD_OUT, 10)
    return root


@pytest.fixture(scope="module")
def nano() -> dict[str, Tensor]:
    return build_model("nano").state_dict()


@pytest.mark.timeout(900)
def test_a_few_dozen_steps_teach_nano_a_look_that_it_is_bad_at(
    stripes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, judges = tmp_path / "out", find_clips([str(stripes / "judges")])
    assert main([
        "finetune", str(stripes / "data"), "--validation", str(stripes / "judges"), "-o", str(out), "--steps", "30",
        "--batch", "3", "--frames", "4", "--corrections", "2", "--clicks", "0.3", "--rate", "8e-4",
        "--augment", "flip,skip,reverse", "--validate-every", "30", "--device", "cpu",
    ]) == 0  # fmt: skip
    report = msgspec.json.decode((out / "finetune.json").read_bytes(), type=Report)
    before, after = report.verdicts
    assert before.j_and_f < 0.45, "the test needs a look that nano is bad at"
    assert after.j_and_f > before.j_and_f + 0.1

    # what is left behind: a checkpoint that the daemon's loader takes, and what was measured is what it does
    tracker = Tracker.load("nano", out / "checkpoint.pt", device="cpu", dtype="fp32")
    assert evaluate_tracker(tracker, judges).j_and_f == pytest.approx(after.j_and_f, abs=1e-6)
    sheet = cv2.imread(str(out / "sheet.png"))
    assert sheet is not None and sheet.shape[0] > 4 * 100
    assert sorted(item.name for item in out.iterdir()) == ["checkpoint.pt", "finetune.json", "sheet.png", "tensorboard"]
    plain = tmp_path / "plain"
    plain.touch()
    assert {(out / name).stat().st_mode for name in ("checkpoint.pt", "finetune.json")} == {plain.stat().st_mode}
    assert f"{before.j_and_f:.3f} before, {after.j_and_f:.3f} after 30 steps" in capsys.readouterr().out

    log = EventAccumulator(str(out / "tensorboard")).Reload()
    assert [event.step for event in log.Scalars("loss/total")] == list(range(1, 31))
    assert [event.value for event in log.Scalars("validation/J&F")] == [pytest.approx(after.j_and_f)]
    assert_official(out / "checkpoint.pt")
    assert_other_engines(out / "checkpoint.pt")


def assert_official(checkpoint: Path) -> None:
    """Meta's own loader takes it, and their predictor has these weights then."""
    predictor = official_predictor("nano", build_model("nano"))
    _load_checkpoint(predictor, str(checkpoint))
    weights = load_state_dict(checkpoint)
    assert all(torch.equal(value, weights[name]) for name, value in predictor.state_dict().items())


def assert_other_engines(checkpoint: Path) -> None:
    """Plans of the original weights are not those of the new ones."""
    requests = [EngineRequest("nano", weights, CPU, torch.float16, "tensorrt") for weights in (None, checkpoint)]
    original, own = (_weights_of(request) for request in requests)
    assert original != own


def test_an_official_size_is_trained_in_meta_s_class_and_loads_in_meta_s_predictor(tmp_path: Path) -> None:
    for model in ("sam2-hiera-tiny", "sam2.1-hiera-tiny"):
        original = build_model(model, random_seed=3).state_dict()
        network = training_network(default_settings(model), original)
        assert network.training and all(torch.equal(v, original[k]) for k, v in network.state_dict().items())
        export(network.state_dict(), tmp_path / "checkpoint.pt")
        predictor = build_sam2_video_predictor(CHECKPOINTS[model].config, str(tmp_path / "checkpoint.pt"), device="cpu")
        assert all(torch.equal(v, original[k]) for k, v in predictor.state_dict().items())


# --- the loop ---


def a_batch(seed: int = 0, num_frames: int = 3) -> VideoBatch:
    frames, masks = draw_clip(seed, num_frames)
    images = np.stack([cv2.resize(frame, (192, 192)) for frame in frames])
    scaled = [cv2.resize(mask.astype(np.uint8), (192, 192), interpolation=cv2.INTER_NEAREST) > 0 for mask in masks]
    return collate([(images, np.stack(scaled)[None])])


def endless() -> Iterator[VideoBatch]:
    while True:
        yield a_batch()


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


def test_a_frozen_encoder_stays_as_it_was_and_the_rest_learns(nano: dict[str, Tensor]) -> None:
    trainer = Trainer(default_settings("nano", freeze_encoder=True, **TINY), nano, CPU)
    trainer.learn(endless())
    moved = changed(nano, trainer.network.state_dict())
    assert moved and not any(name.startswith("image_encoder.") for name in moved)
    assert any(name.startswith("memory_attention.") for name in moved)
    assert any(name.startswith("sam_mask_decoder.") for name in moved)


def test_the_rates_fall_towards_the_picture(nano: dict[str, Tensor]) -> None:
    settings = default_settings("nano", rate=1e-3, encoder_rate=5e-4, layer_decay=0.5)
    trainer = Trainer(settings, nano, CPU)
    names = {parameter: name for name, parameter in trainer.network.named_parameters()}
    rates = {
        names[parameter]: group["peak"] for group in trainer._optimiser.param_groups for parameter in group["params"]
    }
    assert rates.keys() == set(names.values()), "everything learns"
    assert rates["memory_attention.norm.weight"] == 1e-3
    assert rates["image_encoder.neck.convs.0.conv.weight"] == 5e-4
    blocks = [rates[f"image_encoder.trunk.blocks.{number}.mlp.layers.0.weight"] for number in range(8)]
    assert [later / earlier for earlier, later in pairwise(blocks)] == pytest.approx([2.0] * 7)


def test_computing_again_instead_of_keeping_changes_memory_and_nothing_else(nano: dict[str, Tensor]) -> None:
    weights, kept = [], []
    for checkpointing in (False, True):
        trainer = Trainer(default_settings("nano", checkpointing=checkpointing, amp=False, **TINY), nano, CPU)
        kept.append(num_bytes_kept(trainer))
        trainer.learn(endless())
        weights.append(trainer.network.state_dict())
    assert kept[1] < 0.6 * kept[0]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.allclose(weights[0][name], value, atol=1e-5) for name, value in weights[1].items())


def num_bytes_kept(trainer: Trainer) -> int:
    from stream.finetune.estimate import _activations

    return _activations(trainer, a_batch())


def test_two_halves_of_a_batch_teach_what_the_whole_does(nano: dict[str, Tensor]) -> None:
    settings = {"amp": False, "clicks": 0.0} | TINY
    one, two = a_batch(1), a_batch(2)
    whole = VideoBatch(
        torch.cat([one.flat_img_batch, two.flat_img_batch]), torch.cat([one.masks, two.masks], 1),
        torch.cat([one.flat_obj_to_img_idx, two.flat_obj_to_img_idx + 3], 1),
    )  # fmt: skip
    found = []
    for batches, accumulate in (([whole], 1), ([one, two], 2)):
        trainer = Trainer(default_settings("nano", accumulate=accumulate, **settings), nano, CPU)
        trainer.network.num_init_cond_frames_for_train = 1  # the halves would draw other pictures to prompt
        found.append((trainer.learn(iter(batches)), trainer.network.sam_mask_decoder.iou_token.weight.grad.clone()))
    assert found[0][0]["total"] == pytest.approx(found[1][0]["total"], rel=1e-3)
    assert torch.allclose(found[0][1], found[1][1], rtol=1e-2, atol=1e-5 * found[0][1].abs().max().item() + 1e-6)


def test_the_average_lags_behind_the_weights(nano: dict[str, Tensor]) -> None:
    trainer = Trainer(default_settings("nano", average=0.9, **TINY), nano, CPU)
    for _ in range(2):
        trainer.learn(endless())
    name = "sam_mask_decoder.iou_token.weight"
    start, average, now = nano[name], trainer.average[name], trainer.network.state_dict()[name]
    assert 0 < (average - start).norm() < (now - start).norm()


def test_a_loss_that_is_no_number_ends_it_with_one_line(nano: dict[str, Tensor]) -> None:
    broken = {name: value * float("nan") if name == "no_mem_embed" else value for name, value in nano.items()}
    trainer = Trainer(default_settings("nano", **TINY), broken, CPU)
    with pytest.raises(FinetuneError, match="step 1: the loss is nan; expected a number, try a smaller --rate"):
        trainer.learn(endless())


# --- the course ---


def a_course(stripes: Path, out: Path, weights: dict[str, Tensor], **chosen: Any) -> Course:
    learned, judges = find_clips([str(stripes / "data")])[:2], find_clips([str(stripes / "judges")])[:1]
    settings = default_settings("nano", **({"steps": 3, "validate_every": 2} | TINY | chosen))
    return Course(settings, Division(tuple(learned), tuple(judges)), out, weights=weights, device=CPU)


def run(course: Course, **how: bool) -> list[Verdict]:
    return [event for event in course.run(**how) if isinstance(event, Verdict)]


def as_left(out: Path) -> tuple[dict[str, Tensor], Report]:
    return load_state_dict(out / "checkpoint.pt"), msgspec.json.decode(
        (out / "finetune.json").read_bytes(), type=Report
    )


@pytest.fixture(scope="module")
def undisturbed(stripes: Path, nano: dict[str, Tensor]) -> tuple[dict[str, Tensor], Report]:
    run(a_course(stripes, stripes / "undisturbed", nano))
    return as_left(stripes / "undisturbed")


def is_judged(event: Progress | Verdict, num_verdicts: int) -> bool:
    return num_verdicts == 1 and isinstance(event, Progress) and event.stage == "judging"


def is_step_after_a_verdict(event: Progress | Verdict, num_verdicts: int) -> bool:
    return num_verdicts == 2 and isinstance(event, Progress) and event.stage == "learning"


@pytest.mark.parametrize("moment, is_killed", [(is_judged, False), (is_step_after_a_verdict, True)])
def test_a_run_that_goes_on_ends_as_one_that_was_not_interrupted(
    stripes: Path, tmp_path: Path, nano: dict[str, Tensor], *, undisturbed: tuple[dict[str, Tensor], Report],
    moment: Callable[[Progress | Verdict, int], bool], is_killed: bool,
) -> None:  # fmt: skip
    out, num_verdicts = tmp_path / "out", 0
    with closing(a_course(stripes, out, nano).run()) as events:
        for event in events:
            if moment(event, num_verdicts):
                break
            num_verdicts += isinstance(event, Verdict)
        if is_killed:  # the disk as it is at this moment
            out = shutil.copytree(out, tmp_path / "killed")
    run(a_course(stripes, out, nano), resume=True)
    weights, report = as_left(out)
    assert not changed(undisturbed[0], weights)
    assert [verdict.j_and_f for verdict in report.verdicts] == [v.j_and_f for v in undisturbed[1].verdicts]


def test_it_ends_when_nothing_is_gained_any_more(stripes: Path, tmp_path: Path, nano: dict[str, Tensor]) -> None:
    course = a_course(stripes, tmp_path, nano, rate=0.0, encoder_rate=0.0, steps=9, validate_every=1, patience=1)
    assert [verdict.step for verdict in run(course)] == [0, 1, 2]
    assert course.report is not None
    assert (course.report.ended, course.report.best_step) == ("no gain for long", 1)


def test_without_clips_that_judge_the_last_weights_are_kept(
    stripes: Path, tmp_path: Path, nano: dict[str, Tensor]
) -> None:
    course = a_course(stripes, tmp_path, nano, steps=2)
    course._division = Division(course._division.learned, ())
    assert run(course) == []
    assert changed(nano, load_state_dict(tmp_path / "checkpoint.pt"))
    assert course.report is not None and course.report.best_step is None


def test_a_folder_is_never_taken_for_another_run_s(stripes: Path, tmp_path: Path, nano: dict[str, Tensor]) -> None:
    with pytest.raises(FinetuneError, match=r"state\.pt is not there, expected the state of a run"):
        run(a_course(stripes, tmp_path, nano), resume=True)
    with closing(a_course(stripes, tmp_path, nano).run()) as events:
        next(event for event in events if getattr(event, "stage", "") == "learning")
    with pytest.raises(FinetuneError, match=r"state\.pt is there from an earlier run, expected --resume"):
        run(a_course(stripes, tmp_path, nano))
    with pytest.raises(FinetuneError, match=r"was made with frames = 2, expected that instead of 3"):
        run(a_course(stripes, tmp_path, nano, frames=3), resume=True)
    (tmp_path / "state.pt").write_bytes((tmp_path / "state.pt").read_bytes()[:5000])
    with pytest.raises(FinetuneError, match=r"state\.pt: cannot go on from it"):
        run(a_course(stripes, tmp_path, nano), resume=True)


def test_a_dry_run_says_what_it_would_take_and_writes_nothing(
    stripes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["finetune", str(stripes / "data"), "-o", str(tmp_path / "out"), "--dry-run", "--device", "cpu"]
    assert main([*arguments, "--batch", "1", "--frames", "2", "--corrections", "1", "--freeze-encoder"]) == 0
    told = capsys.readouterr().out
    assert "learning from 8 clips, 128 annotated pictures; judged on stripes-" in told
    network = build_model("nano")
    total, encoder = (sum(p.numel() for p in part.parameters()) for part in (network, network.image_encoder))
    assert f"{total / 1e6:.2f} million, {(total - encoder) / 1e6:.2f} of them learn" in told
    assert "in all         about" in told and "kept for the backward pass" in told
    assert not list(tmp_path.iterdir())
