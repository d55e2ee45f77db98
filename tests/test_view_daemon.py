"""A person at the window of a real daemon with an RTSP camera: adds by a click and by a box, corrects, names, removes,
takes back, closes. What the daemon then tracks is compared with what is really there.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from daemon_rig import daemon, write_clip
from rtsp import APT_PACKAGES as RTSP_PACKAGES
from rtsp import RtspServer
from view_rig import APT_PACKAGES, Hand, until, viewing, virtual_screen

from engines.synthetic import ClipSpec, SyntheticClip, read_counter
from stream.client import FrameMessage, MasksMessage, Subscriber

pytestmark = [pytest.mark.twice, pytest.mark.timeout(240)]
SPEC = ClipSpec(
    seed=5, num_frames=90, height=240, width=320, num_objects=2, num_distractors=0, speed=0.15, leave_probability=0.0
)
COFFEE = Path(__file__).resolve().parents[2] / "shared" / "clips" / "coffee.mp4"  # real pictures, beside the clone
CONFIG = """model = "nano"
[[camera]]
name = "door"
source = "{url}"
"""


class Watch:
    """What the daemon publishes, beside the window: the newest picture, the number that is burnt into it, its masks."""

    def __init__(self, endpoint: str) -> None:
        self._subscriber = Subscriber(endpoint, ["door"], frames=True, timeout_s=90)
        self._masks: dict[int, MasksMessage] = {}

    def newest(self) -> tuple[int, MasksMessage]:
        while True:
            message = self._subscriber.receive().message
            if isinstance(message, MasksMessage):
                self._masks = {seq: masks for seq, masks in self._masks.items() if seq > message.seq - 64}
                self._masks[message.seq] = message
            if not isinstance(message, FrameMessage) or message.seq not in self._masks:
                continue
            picture_hwc = cv2.imdecode(np.frombuffer(message.data, np.uint8), cv2.IMREAD_COLOR)
            number = read_counter(np.asarray(picture_hwc, np.uint8))
            if number is not None and number < SPEC.num_frames:
                return number, self._masks[message.seq]

    def is_good(self, clip: SyntheticClip, object_id: int, index: int) -> bool:
        """Whether the object with this id covers the clip's object on the newest picture."""
        number, masks = self.newest()
        if object_id not in [item.id for item in masks.objects]:
            return False
        found_hw, truth_hw = masks.mask(object_id), clip.masks(number)[index]
        return float((found_hw & truth_hw).sum() / max(1, (found_hw | truth_hw).sum())) > 0.6

    def labels(self) -> dict[int, str]:
        return {item.id: item.label for item in self.newest()[1].objects}

    def close(self) -> None:
        self._subscriber.close()


def test_a_person_adds_corrects_and_removes_objects_on_an_rtsp_camera(
    tmp_path: Path, needs_apt: Callable[..., None]
) -> None:
    needs_apt(*APT_PACKAGES, *RTSP_PACKAGES)
    clip = write_clip(tmp_path / "clip.mkv", SPEC, codec="ffv1")
    with (
        RtspServer(tmp_path / "clip.mkv", loop=True) as server,
        daemon(tmp_path, CONFIG.format(url=server.url)) as running,
        virtual_screen() as screen,
        viewing(screen, running.endpoint) as process,
    ):
        watch = Watch(running.endpoint)
        watch.newest()  # or it tells why nothing comes
        until(lambda: screen.window() or process.poll() is not None, "a window")
        hand = Hand(screen, screen.window() or "")
        hand.settle(SPEC.width, SPEC.height + 48)

        x, y = clip.click(0, watch.newest()[0])
        hand.click(round(x), round(y))
        until(lambda: watch.is_good(clip, 1, 0), "the first object, by a click")

        ys, xs = np.nonzero(clip.masks(watch.newest()[0])[1])
        hand.press("n", "a new object: click on it, or draw a box around it")
        hand.drag((int(xs.min()), int(ys.min())), (int(xs.max()), int(ys.max())))
        until(lambda: watch.is_good(clip, 2, 1), "the second object, by a box")

        x, y = clip.click(0, watch.newest()[0])
        hand.click(round(x), round(y), button=3)
        until(lambda: "Refine door" in running.log.read_text(), "a correction")
        until(lambda: hand.reads("object 2 corrected: this does not belong to it"), "the answer")
        hand.press("z", "taken back: refine 2")
        until(lambda: watch.is_good(clip, 2, 1), "the second object, as it was before")

        hand.type_name("cup", 2)
        until(lambda: watch.labels().get(2) == "cup", "a name")
        hand.press("Delete", "object 2 removed; Z brings it back")
        until(lambda: watch.labels().keys() == {1}, "one object less")
        hand.press("z", "taken back: remove 2")
        until(lambda: watch.labels() == {1: "", 2: "cup"} and watch.is_good(clip, 2, 1), "the object is back")
        watch.close()
        hand.press("q")
        assert process.wait(60) == 0


def blueness(endpoint: str) -> float:
    """How much of the only object is blue, on the newest picture; 0 while there are none, several, or a tiny one."""
    masks: dict[int, MasksMessage] = {}
    with Subscriber(endpoint, ["door"], frames=True, timeout_s=90) as subscriber:
        for message in subscriber.messages():
            if isinstance(message, MasksMessage):
                masks[message.seq] = message
            if isinstance(message, FrameMessage) and message.seq in masks:
                break
    ids = [item.id for item in masks[message.seq].objects]
    if len(ids) != 1 or masks[message.seq].objects[0].area < 5000:
        return 0.0
    picture_hwc = cv2.imdecode(np.frombuffer(message.data, np.uint8), cv2.IMREAD_COLOR).astype(int)
    inside_n3 = picture_hwc[masks[message.seq].mask(ids[0])]
    return float((inside_n3[:, 0] > inside_n3[:, 2] + 40).mean())


@pytest.mark.skipif(not COFFEE.exists(), reason="there are no real clips beside the clone")
def test_a_person_follows_a_blue_cup_in_real_pictures(tmp_path: Path, needs_apt: Callable[..., None]) -> None:
    needs_apt(*APT_PACKAGES, *RTSP_PACKAGES)
    with (
        RtspServer(COFFEE, loop=True) as server,
        daemon(tmp_path, CONFIG.format(url=server.url)) as running,
        virtual_screen("1400x900x24") as screen,
        viewing(screen, running.endpoint) as process,
    ):
        until(lambda: screen.window() or process.poll() is not None, "a window")
        hand = Hand(screen, screen.window() or "")
        blueness(running.endpoint)  # or it tells why no pictures come
        hand.settle(1280, 768)
        hand.click(840, 480)
        until(lambda: blueness(running.endpoint) > 0.7, "the cup, by a click")
        hand.click(860, 500)
        until(lambda: hand.reads("object 1 corrected: this belongs to it"), "the answer to a correction")
        until(lambda: blueness(running.endpoint) > 0.7, "the cup, corrected")
        hand.press("Delete", "object 1 removed; Z brings it back")
        hand.press("q")
        assert process.wait(60) == 0
