"""The demo: its figures against known cases, and the whole of it as a user runs it, to its end and broken off."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from deliveries import masks_of
from numpy.typing import NDArray

from engines.synthetic import DEMO, ClipSpec, SyntheticClip, draw_counter, strip_height
from stream import wire
from stream.capture import Watch, open_source
from stream.config import CameraConfig, Config, ConfigError
from stream.demo.baseline import ColourThreshold, to_lab
from stream.demo.plan import FPS, DemoError, make_plan
from stream.demo.process import DaemonProcess
from stream.demo.receiver import Receiver, Sample
from stream.demo.report import measure, to_json
from stream.demo.review import Reviewer
from stream.demo.score import Scorer, iou
from stream.frame import Stamp
from stream.movie import MovieWriter

KEYS = [
    "frames", "fps", "dropped", "arrival_to_published_ms", "arrival_to_received_ms",
    "mean_iou", "mean_iou_first_mask_frozen", "mean_iou_colour_threshold", "id_switches",
]  # fmt: skip
SMALL = ClipSpec(seed=3_000_000_007, num_frames=10, height=120, width=160)
Bools = NDArray[np.bool_]


def squares(*corners: tuple[int, int] | None, size: int = 20) -> Bools:
    """One square a corner (x, y), on a picture of 100 x 100; None is an empty mask."""
    masks_nhw = np.zeros((len(corners), 100, 100), np.bool_)
    for mask_hw, corner in zip(masks_nhw, corners, strict=True):
        if corner is not None:
            mask_hw[corner[1] : corner[1] + size, corner[0] : corner[0] + size] = True
    return masks_nhw


def scored(predicted: Sequence[Bools], truth: Sequence[Bools]) -> Scorer:
    scorer = Scorer(len(truth[0]))
    scorer.start_pass(predicted[0])
    for masks_nhw, truth_nhw in zip(predicted, truth, strict=True):
        scorer.put(masks_nhw, truth_nhw, None)
    return scorer


def sample(clip: SyntheticClip, index: int, *, epoch: int = 0, shown: int | None = None) -> Sample:
    """What is received of a tracker that makes no mistake; `shown` is burnt in instead of the right number."""
    image_hwc = clip.frame(index)
    draw_counter(image_hwc, index if shown is None else shown)
    masks = masks_of(clip.masks(index))
    seq = epoch * clip.spec.num_frames + index
    arrival_ns = 1_000_000_000 + seq * 100_000_000
    stamp = Stamp("demo", epoch, seq, "demo_optical_frame", None, arrival_ns, arrival_ns, arrival_ns)
    fields = wire.picture_fields(stamp, masks, inferred_ns=arrival_ns)
    message = wire.MasksMessage(
        num_dropped=0, model="nano", backend="eager",
        objects=wire.objects_of(masks, {}, wire.MaskEncoder("bits")),
        **{**fields, "published_ns": arrival_ns + 30_000_000 + seq * 1_000_000},
    )  # fmt: skip
    return Sample(message, arrival_ns + 40_000_000, cv2.imencode(".jpg", image_hwc)[1].tobytes())


# --- the figures ------------------------------------------------------------------------------------------------------


def test_iou_counts_pixels_and_two_empty_masks_agree() -> None:
    a, b, nothing = squares((40, 40), (50, 40), None)
    assert iou(a, a) == 1 and iou(a, b) == pytest.approx(1 / 3)
    assert iou(nothing, nothing) == 1 and iou(a, nothing) == 0 == iou(nothing, a)


def test_a_hidden_object_wants_an_empty_mask() -> None:
    seen, hidden = squares((40, 40)), squares(None)
    assert scored([seen, hidden], [seen, hidden]).quality.mean_iou == 1
    assert scored([seen, seen], [seen, hidden]).quality.mean_iou == 0.5


def test_the_frozen_mask_is_the_first_received_one() -> None:
    moving = [squares((40 + step, 40)) for step in (0, 10, 60)]
    quality = scored(moving, moving).quality
    assert quality.mean_iou == 1 and quality.first_mask_frozen == pytest.approx((1 + 1 / 3 + 0) / 3)


def test_rows_under_the_burnt_in_number_do_not_count() -> None:
    truth, wrong = squares((40, 40)), squares((40, 40))
    wrong[0, : strip_height(100)] = True
    assert scored([wrong], [truth]).quality.mean_iou == 1
    wrong[0, strip_height(100)] = True
    assert scored([wrong], [truth]).quality.mean_iou < 1


def test_ids_switch_when_masks_change_objects() -> None:
    truth = squares((10, 40), (60, 40))
    swapped = truth[::-1]
    assert scored([truth] * 3, [truth] * 3).quality.id_switches == 0
    assert scored([truth, swapped, swapped], [truth] * 3).quality.id_switches == 2
    assert scored([truth, swapped, truth], [truth] * 3).quality.id_switches == 4
    both_on_first = np.stack([truth[0], truth[0]])
    assert scored([truth, both_on_first], [truth] * 2).quality.id_switches == 1
    elsewhere, nothing = squares((10, 70), (72, 40)), squares(None, None)
    assert scored([truth, elsewhere, nothing], [truth] * 3).quality.id_switches == 0, "no object is not another object"


def test_a_colour_threshold_finds_a_colour_and_is_lost_among_equals() -> None:
    noise = np.random.default_rng(0).integers(0, 6, (100, 100, 3), np.uint8)
    (mask_hw,) = squares((40, 40))
    plain, among_equals = noise.copy(), noise + np.uint8(200)
    plain[mask_hw] += np.uint8(200)
    for image_hwc, low, high in ((plain, 0.99, 1), (among_equals, 0, 0.1)):
        colour = ColourThreshold(to_lab(image_hwc), mask_hw)
        colour.score(to_lab(image_hwc), mask_hw, iou)
        assert low <= colour.best_mean <= high


def test_nothing_simple_solves_the_demo_clip() -> None:
    clip = SyntheticClip(DEMO)
    scorer = Scorer(DEMO.num_objects)
    scorer.start_pass(clip.masks(0))
    for index in range(0, DEMO.num_frames, 5):
        scorer.put(clip.masks(index), clip.masks(index), clip.frame(index))
    quality = scorer.quality
    assert quality is not None and quality.mean_iou == 1 and quality.id_switches == 0
    assert quality.first_mask_frozen <= 0.35 and quality.colour_threshold <= 0.5


def test_figures_come_from_the_times_in_the_messages() -> None:
    clip = SyntheticClip(SMALL)
    figures = measure([sample(clip, index) for index in (0, 1, 2, 4)], None)
    assert (figures.frames, figures.dropped) == (4, 1)
    assert figures.fps == 7.5  # three steps in 0.4 s
    assert figures.arrival_to_published_ms.p50 == 31.5 and figures.arrival_to_received_ms.p99 == 40
    told = json.loads(to_json(figures))
    assert list(told) == KEYS and told["mean_iou"] is None and list(told["arrival_to_received_ms"]) == ["p50", "p99"]


# --- the review -------------------------------------------------------------------------------------------------------


def test_perfect_masks_score_one_and_every_picture_is_filmed(tmp_path: Path) -> None:
    clip = SyntheticClip(SMALL)
    samples = [sample(clip, index) for index in range(10)]
    samples[3] = dataclasses.replace(samples[3], jpeg=None)
    review = Reviewer(clip).run(samples, tmp_path / "film.mp4")
    assert review.quality is not None and review.quality.mean_iou == 1 and review.quality.num_scored == 10
    assert review.num_filmed == 9 == len(review.cells) and review.num_unscored == 0


def test_a_picture_with_another_number_is_refused(tmp_path: Path) -> None:
    clip = SyntheticClip(SMALL)
    samples = [sample(clip, 0), sample(clip, 1, shown=2)]
    with pytest.raises(DemoError, match="picture 1 of epoch 0 shows the number 2, expected 1"):
        Reviewer(clip).run(samples, tmp_path / "film.mp4")


def test_a_pass_without_its_first_picture_is_not_scored(tmp_path: Path) -> None:
    clip = SyntheticClip(SMALL)
    samples = [sample(clip, index, epoch=epoch) for epoch, index in ((0, 0), (0, 9), (1, 2), (1, 3), (2, 0), (2, 1))]
    review = Reviewer(clip).run(samples, tmp_path / "film.mp4")
    assert review.quality is not None and review.quality.num_scored == 4 and review.num_unscored == 2


# --- the plan ---------------------------------------------------------------------------------------------------------


def test_the_camera_shows_the_demo_clip_and_each_object_is_clicked_once() -> None:
    plan = make_plan(None, None)
    (camera,) = plan.config.cameras
    clip = SyntheticClip(DEMO)
    pictures = open_source(dataclasses.replace(camera, pace="offline")).pictures(Watch())
    for index, picture in enumerate(itertools.islice(pictures, 2)):
        seen_hwc, expected_hwc = np.zeros((picture.height, picture.width, 3), np.uint8), clip.frame(index)
        picture.copy_into(seen_hwc)
        draw_counter(expected_hwc, index)
        assert np.array_equal(seen_hwc, expected_hwc) and picture.pts_ns == pytest.approx(index * 1e9 / FPS, abs=1)
    assert (plan.config.model, camera.pace, camera.loop) == ("nano", "live", False)
    clicks = [prompt.points for prompt in camera.prompts]
    assert clicks == [((*clip.click(number), 1),) for number in range(DEMO.num_objects)]


def test_the_clip_plays_again_only_where_it_is_too_short() -> None:
    length_s = DEMO.num_frames / FPS
    assert not make_plan(length_s, None).config.cameras[0].loop and make_plan(length_s + 1, None).config.cameras[0].loop


@pytest.mark.parametrize("seconds", [0.0, -1.0, 601.0, float("nan")])
def test_impossible_seconds_are_refused(seconds: float) -> None:
    with pytest.raises(DemoError, match="expected a number from 1 to 600"):
        make_plan(seconds, None)


def test_a_source_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'none\.mp4': expected an existing file"):
        make_plan(None, "none.mp4")


# --- the whole of it --------------------------------------------------------------------------------------------------


@contextmanager
def demo_process(folder: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """The command in a folder of its own; killed at the end where a test has not waited for it."""
    search_path = os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(
        [sys.executable, "-m", "stream.cli", "demo", "--no-window", *options],
        cwd=folder, env={**os.environ, "PYTHONPATH": search_path}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def run_to_end(folder: Path, *options: str) -> dict[str, object]:
    with demo_process(folder, "--json", *options) as process:
        out, err = process.communicate(timeout=110)
    assert process.returncode == 0, err
    assert "Error" not in err and "Traceback" not in err, err
    return json.loads(out.splitlines()[-1])


def num_pictures(path: Path) -> int:
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        return sum(1 for _ in container.decode(video=0))


def test_the_demo_plays_scores_and_films(tmp_path: Path) -> None:
    figures = run_to_end(tmp_path, "--seconds", "5")
    assert list(figures) == KEYS
    assert figures["frames"] >= 5 and figures["fps"] > 0
    for times in (figures["arrival_to_published_ms"], figures["arrival_to_received_ms"]):
        assert 0 < times["p50"] <= times["p99"]
    assert figures["arrival_to_published_ms"]["p50"] <= figures["arrival_to_received_ms"]["p50"]
    assert figures["mean_iou_first_mask_frozen"] <= 0.35 and figures["mean_iou_colour_threshold"] <= 0.5
    assert figures["mean_iou"] > max(figures["mean_iou_first_mask_frozen"], figures["mean_iou_colour_threshold"])
    assert num_pictures(tmp_path / "demo.mp4") == figures["frames"]
    sheet_hwc = cv2.imread(str(tmp_path / "demo.png"))
    assert sheet_hwc is not None and sheet_hwc.shape[1] == 1600 and sheet_hwc.std() > 20
    assert sorted(os.listdir(tmp_path)) == ["demo.mp4", "demo.png"]


def test_nano_follows_both_objects_through_the_whole_clip(tmp_path: Path) -> None:
    plan = make_plan(None, None)
    camera = dataclasses.replace(plan.config.cameras[0], pace="offline")  # every picture, however busy the machine is
    with DaemonProcess(dataclasses.replace(plan.config, cameras=(camera,))) as daemon:
        samples = Receiver(daemon.wait_endpoint(), "demo", seconds=None, show=None).run(daemon.is_alive)
        daemon.check()
    review = Reviewer(plan.clip).run(samples, tmp_path / "film.mp4")
    figures = measure(samples, review.quality)
    assert (figures.frames, figures.dropped, review.num_filmed) == (DEMO.num_frames, 0, DEMO.num_frames)
    assert figures.mean_iou >= 0.80 and figures.id_switches == 0
    assert figures.mean_iou_first_mask_frozen <= 0.35 and figures.mean_iou_colour_threshold <= 0.5


def test_a_source_of_ones_own_has_no_truth(tmp_path: Path) -> None:
    clip = SyntheticClip(SMALL)
    with MovieWriter(tmp_path / "own.mp4") as movie:
        for index in range(20):
            movie.put(clip.frame(index), index * 100_000_000)
    figures = run_to_end(tmp_path, "--source", "own.mp4")
    assert [figures[key] for key in KEYS[5:]] == [None] * 4 and 0 < figures["frames"] <= 20
    assert num_pictures(tmp_path / "demo.mp4") == figures["frames"] and (tmp_path / "demo.png").exists()


def test_the_receiving_process_needs_no_torch() -> None:
    code = "import sys, stream.demo; sys.exit(', '.join({'torch', 'sam2'} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_broken_off_it_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    with demo_process(tmp_path) as process:
        assert process.stderr is not None
        assert any("-> here" in line for line in process.stderr), "it did not come as far as playing"
        (daemon,) = children(process.pid)
        process.send_signal(number)
        assert process.wait(20) == (-number if number is signal.SIGKILL else 130)
        deadline = time.monotonic() + 20
        while is_running(daemon) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not is_running(daemon)
    assert os.listdir(tmp_path) == []


def test_what_the_daemon_cannot_do_is_told_once(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    camera = CameraConfig(name="demo", source="testsrc://demo")
    config = Config(cameras=(camera,), checkpoint=tmp_path / "none.pt", bind=("tcp://127.0.0.1:*",), allow_cpu=True)
    with DaemonProcess(config) as daemon:
        assert daemon.wait_endpoint().startswith("tcp://127.0.0.1:")
        assert daemon.process.wait(60) == 1
        with pytest.raises(DemoError) as caught:
            daemon.check()
    assert (str(caught.value), caught.value.exit_code) == ("", 1)
    assert capfd.readouterr().err.count("\n") == 1


def test_a_killed_daemon_is_told(tmp_path: Path) -> None:
    camera = CameraConfig(name="demo", source="testsrc://demo")
    config = Config(cameras=(camera,), bind=("tcp://127.0.0.1:*",), allow_cpu=True)
    with DaemonProcess(config) as daemon:
        daemon.wait_endpoint()
        daemon.process.kill()
        daemon.process.wait(10)
        with pytest.raises(DemoError, match="the daemon was ended by SIGKILL"):
            daemon.check()
