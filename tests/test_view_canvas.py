"""A pixel of the window is the picture's pixel that is drawn there, whatever size the window has; gestures of the
mouse; and commands that go to and fro beside the window.
"""

from __future__ import annotations

import cv2
import msgspec
import numpy as np
import pytest
from control_rig import RUN, controlling
from deliveries import wait_for
from hypothesis import given
from hypothesis import strategies as st
from view_rig import HEIGHT, WIDTH, message

from stream.client import FrameMessage, MasksMessage, StateMessage
from stream.command import Add, Refine, Remove, Rename, Reply, Seen, Undo
from stream.frame import CameraCondition
from stream.overlay import colour_of, scaled
from stream.view.asking import Ask
from stream.view.canvas import AMBER, PANEL_HEIGHT, Card, Mark, Place, compose, window_size
from stream.view.gesture import Box, Click, Gestures, Spot
from stream.view.messenger import MAX_WAITING, Messenger
from stream.view.reel import Reel
from stream.view.window import Act, Button, Touch, key_name


def picture(width: int, height: int) -> np.ndarray:
    """Every pixel tells where it is: blue = column, green = row."""
    image_hwc = np.zeros((height, width, 3), np.uint8)
    image_hwc[:, :, 0] = np.arange(width) % 256
    image_hwc[:, :, 1] = (np.arange(height) % 256)[:, None]
    return image_hwc


def card(width: int = 200, height: int = 100, **fields: object) -> Card:
    masks = message(size=(width, height))
    return Card("a", "a  0/0", picture_hwc=picture(width, height), masks=masks, **fields)  # type: ignore[arg-type]


def test_in_its_own_size_every_pixel_is_itself() -> None:
    shown = card()
    assert shown.masks is not None and window_size(shown.masks, (1280, 800)) == (200, 100 + PANEL_HEIGHT)
    canvas = compose([shown], (200, 100 + PANEL_HEIGHT), said="")
    assert np.array_equal(canvas.image_hwc[:100], picture(200, 100))
    for x, y in ((0, 0), (199, 99), (57, 31)):
        assert canvas.spot(Touch(Act.MOVE, None, x, y)) == Spot(shown.masks, x, y)
    assert canvas.spot(Touch(Act.MOVE, None, 0, 100)) is None, "the panel is no picture"


@pytest.mark.parametrize("factor", [2, 3, 5])
def test_enlarged_a_pixel_of_the_window_is_the_pixel_that_it_shows(factor: int) -> None:
    canvas = compose([card()], (200 * factor, 100 * factor + PANEL_HEIGHT), said="")
    middle = factor // 2
    for x, y in ((0, 0), (199, 99), (57, 31)):
        for dx, dy in ((0, 0), (factor - 1, factor - 1), (middle, 0)):
            spot = canvas.spot(Touch(Act.MOVE, None, x * factor + dx, y * factor + dy))
            assert spot is not None and (spot.x, spot.y) == (x, y)
        if factor % 2:  # then one pixel of the window lies in the middle of the picture's
            shown = canvas.image_hwc[y * factor + middle, x * factor + middle, :2]
            assert np.abs(shown.astype(int) - (x, y)).max() <= 1


@given(
    st.integers(120, 1500), st.integers(120, 1000), st.integers(16, 900), st.integers(16, 900), st.floats(0, 0.999999)
)
def test_there_and_back_again(window_width: int, window_height: int, width: int, height: int, part: float) -> None:
    """Where a picture's pixel is drawn, the mouse points at this pixel, or, where many share one, at a neighbour."""
    masks = message(size=(width, height))
    factor = min(window_width / width, window_height / height)
    place = Place(masks, 3, 5, max(1, round(width * factor)), max(1, round(height * factor)))
    x, y = int(part * width), int((1 - part) * (height - 1))
    spot = place.spot(*place.inside(x, y))
    assert spot is not None
    tolerance = 0 if factor >= 1 else 1 / factor
    assert abs(spot.x - x) <= tolerance and abs(spot.y - y) <= tolerance
    corner = place.spot(place.left + place.width - 1, place.top + place.height - 1)
    assert corner is not None and 0 <= corner.x < width and 0 <= corner.y < height
    assert place.spot(place.left - 1, place.top) is None


def test_in_the_grid_every_camera_has_its_place() -> None:
    names = "abcde"
    cards = [
        Card(name, name, picture_hwc=picture(200, 100), masks=message(camera=name, size=(200, 100))) for name in names
    ]
    canvas = compose(cards, (900, 700), said="")
    assert len(canvas.places) == 5
    for name, place in zip(names, canvas.places, strict=True):
        spot = canvas.spot(Touch(Act.MOVE, None, place.left + place.width // 2, place.top + place.height // 2))
        assert spot is not None and spot.masks.camera == name
        assert abs(spot.x - 100) <= 1 and abs(spot.y - 50) <= 1
        assert abs(place.width / place.height - 2) < 0.05
    boxes = [(p.left, p.top, p.left + p.width, p.top + p.height) for p in canvas.places]
    for index, one in enumerate(boxes):
        for other in boxes[index + 1 :]:
            assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]


@pytest.mark.parametrize("num", [0, 1, 2, 3, 17])
@pytest.mark.parametrize("size", [(1, 1), (120, 100), (400, 300), (3000, 200)])
def test_every_window_can_be_drawn(num: int, size: tuple[int, int]) -> None:
    masks = message(0, {1: (5, 5, 90, 70)}, labels={1: "Tasse"})
    mark = Mark(50, 50), Mark(box=(1, 1, 159, 119)), Mark(0, 0, False)
    cards = [
        Card(str(i), "line " * 50, is_well=i % 2 == 0, picture_hwc=picture(WIDTH, HEIGHT), masks=masks, marks=mark)
        for i in range(num)
    ]
    for is_help in (False, True):
        canvas = compose(cards, size, said="said " * 100, is_help=is_help)
        assert canvas.image_hwc.shape[0] >= size[1] and canvas.image_hwc.shape[1] >= size[0]


def test_a_camera_without_a_picture_says_why_in_amber() -> None:
    canvas = compose([Card("a", "waiting for tcp://x", is_well=False)], (400, 300), said="")
    assert canvas.places == ()
    assert (np.abs(canvas.image_hwc[:60].astype(int) - AMBER).max(axis=2) < 40).sum() > 20


def test_the_given_pictures_stay_as_they_are() -> None:
    before = picture(200, 100)
    given_card = card(marks=(Mark(3, 3),), selected=1)
    compose([given_card, given_card], (400, 300), said="", is_help=True)
    assert given_card.picture_hwc is not None and np.array_equal(given_card.picture_hwc, before)


def test_scaled_masks_lie_where_they_lay() -> None:
    masks = message(0, {1: (10, 20, 90, 100), 2: (0, 0, 3, 3), 3: (150, 110, 160, 120)}).masks()
    for factor in (0.25, 0.6, 1.0, 1.7, 4.0):
        height, width = round(HEIGHT * factor), round(WIDTH * factor)
        found = scaled(masks, height, width)
        assert found.packed_nhb.shape == (3, height, (width + 7) // 8)
        for row, mask_hw in enumerate(found.masks_nhw):
            assert mask_hw.any(), "nothing vanishes"
            x0, y0, x1, y1 = found.boxes_n4[row].tolist()
            assert mask_hw.sum() == mask_hw[y0:y1, x0:x1].sum() == found.areas[row]
        ys, xs = np.nonzero(found.masks_nhw[0])
        assert abs((xs.mean() + 0.5) / factor - 50) < 1.5 and abs((ys.mean() + 0.5) / factor - 60) < 1.5
        assert found.areas[0] / factor**2 == pytest.approx(masks.areas[0], rel=0.1)


def test_the_selected_object_has_a_white_rim() -> None:
    masks = message(0, {1: (20, 20, 80, 80)})
    black_hwc = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    size = (WIDTH * 3, HEIGHT * 3 + PANEL_HEIGHT)
    plain, chosen = (
        compose([Card("a", "", picture_hwc=black_hwc, masks=masks, selected=selected)], size, said="").image_hwc
        for selected in (None, 1)
    )
    colour = np.array(colour_of(1))
    assert (np.abs(plain.astype(int) - colour).max(axis=2) < 10).sum() > 100
    assert (plain[50:] > 250).all(axis=2).sum() * 5 < (chosen[50:] > 250).all(axis=2).sum()


# --- what came of a camera --------------------------------------------------------------------------------------------


def frame_of(masks: MasksMessage, picture_hwc: np.ndarray) -> FrameMessage:
    shared = {name: getattr(masks, name) for name in FrameMessage.__struct_fields__ if hasattr(masks, name)}
    return FrameMessage(**shared, encoding="jpeg", data=cv2.imencode(".jpg", picture_hwc)[1].tobytes())


def state(condition: CameraCondition, reason: str = "", problem: str = "") -> StateMessage:
    return StateMessage(camera="a", epoch=0, condition=condition, reason=reason, utc_ns=1, problem=problem)


def test_a_camera_tells_why_no_pictures_come() -> None:
    reel = Reel("a")
    assert reel.trouble(0.0) == "a: waiting for the first picture"
    reel.put(state(CameraCondition.OFFLINE, "connection refused"), 1.0)
    assert reel.trouble(1.0) == "a is offline: connection refused"
    reel.put(state(CameraCondition.ONLINE, "frames arrive", "daemon.toml: wrong"), 2.0)
    masks = message(4)
    reel.put(masks, 2.0)
    reel.put(frame_of(masks, picture(WIDTH, HEIGHT)), 2.0)
    assert reel.advance() and reel.take_unseen() is masks and reel.take_unseen() is None
    assert reel.trouble(4.0) == ""
    assert reel.figures().startswith("a  0/4  ") and reel.figures().endswith("online")
    assert reel.problem() == "daemon.toml: wrong"
    assert reel.trouble(9.0) == "a: no picture for 7 s, waiting for the daemon"
    reel.put(state(CameraCondition.PAUSED), 9.0)
    assert reel.trouble(9.0) == "a is paused"


def test_a_picture_that_is_none_or_of_another_size_is_not_shown() -> None:
    reel, masks = Reel("a"), message(4)
    reel.put(masks, 0.0)
    reel.put(frame_of(masks, picture(WIDTH + 8, HEIGHT)), 0.0)
    assert not reel.advance() and reel.shown is None
    masks = message(5)
    reel.put(masks, 0.0)
    reel.put(msgspec.structs.replace(frame_of(masks, picture(WIDTH, HEIGHT)), data=b"no JPEG"), 0.0)
    assert not reel.advance() and reel.shown is None


# --- gestures --------------------------------------------------------------------------------------------------------


def touch(gestures: Gestures, act: Act, x: int, y: int, **fields: object) -> Click | Box | None:
    masks, button = fields.get("masks", SHOWN), fields.get("button", Button.LEFT)
    spot = None if masks is None else Spot(masks, x, y)  # type: ignore[arg-type]
    return gestures.put(Touch(act, None if act is Act.MOVE else button, x, y), spot)  # type: ignore[arg-type]


SHOWN, LATER = message(1), message(2)


def test_a_click_is_about_the_picture_under_it_when_the_button_went_down() -> None:
    gestures = Gestures()
    assert touch(gestures, Act.PRESS, 10, 20) is None
    assert touch(gestures, Act.MOVE, 12, 21, masks=LATER) is None
    assert gestures.dragged is None
    assert touch(gestures, Act.RELEASE, 12, 21, masks=LATER) == Click(Button.LEFT, Spot(SHOWN, 10, 20))


def test_a_drag_is_a_box_on_the_picture_under_it_when_the_button_came_up() -> None:
    gestures = Gestures()
    touch(gestures, Act.PRESS, 60, 50)
    touch(gestures, Act.MOVE, 30, 40)
    assert gestures.dragged == Box(SHOWN, (30, 40, 61, 51))
    assert touch(gestures, Act.RELEASE, 20, 30, masks=LATER) == Box(LATER, (20, 30, 61, 51))
    assert gestures.dragged is None
    assert touch(gestures, Act.RELEASE, 20, 30) is None


def test_a_drag_that_leaves_the_picture_ends_at_its_last_place_inside() -> None:
    gestures = Gestures()
    touch(gestures, Act.PRESS, 60, 50)
    touch(gestures, Act.MOVE, 90, 80)
    assert touch(gestures, Act.RELEASE, 300, 300, masks=None) == Box(SHOWN, (60, 50, 91, 81))


def test_only_the_left_button_drags() -> None:
    gestures = Gestures()
    touch(gestures, Act.PRESS, 60, 50, button=Button.RIGHT)
    touch(gestures, Act.MOVE, 90, 80)
    assert touch(gestures, Act.RELEASE, 90, 80, button=Button.RIGHT) == Click(Button.RIGHT, Spot(SHOWN, 60, 50))


def test_a_second_button_gives_up_what_the_first_began() -> None:
    gestures = Gestures()
    touch(gestures, Act.PRESS, 60, 50)
    touch(gestures, Act.PRESS, 60, 50, button=Button.RIGHT)
    assert touch(gestures, Act.RELEASE, 60, 50) is None
    assert touch(gestures, Act.RELEASE, 60, 50, button=Button.RIGHT) is None


def test_a_press_beside_every_picture_begins_nothing() -> None:
    gestures = Gestures()
    touch(gestures, Act.PRESS, 60, 50, masks=None)
    assert touch(gestures, Act.RELEASE, 60, 50) is None


def test_keys_have_names() -> None:
    codes = {-1: "", 27: "escape", 0xFFFF: "delete", 0xFF9F: "delete", 9: "tab", ord("q"): "q", 0xFFE1: "", -28: "ä"}
    assert {code: key_name(code) for code in codes} == codes


# --- the messenger ---------------------------------------------------------------------------------------------------


@pytest.fixture
def messenger() -> object:
    thread = Messenger()
    yield thread
    thread.stop()
    thread.join(10)
    assert thread.error is None


SEEN = Seen(epoch=0, seq=7, width=160, height=120, run=RUN)
REQUESTS = (
    Add(camera="cam1", points=((1, 2, 1),), seen=SEEN),
    Add(camera="cam1", box=(1, 2, 3, 4), object_id=2, seen=SEEN),
    Refine(camera="cam1", object_id=1, points=((1, 2, 0),), seen=SEEN),
    Rename(camera="cam1", object_id=1, label="cup"),
    Remove(camera="cam1", object_id=1),
    Undo(camera="cam1"),
)


def test_commands_arrive_as_they_were_asked_and_in_order(messenger: Messenger) -> None:
    with controlling() as rig:
        messenger.start()
        for token, request in enumerate(REQUESTS):
            messenger.put(rig.endpoint, Ask(token, request))
        outcomes: list = []
        wait_for(lambda: outcomes.extend(messenger.take()) or len(outcomes) == len(REQUESTS), 30)
        assert [outcome.token for outcome in outcomes] == list(range(len(REQUESTS)))
        assert all(outcome.reply is not None and outcome.reply.ok for outcome in outcomes)
        sent = [(type(item), _fields(item)) for item in rig.obeying.taken]
        assert sent == [(type(item), _fields(item)) for item in REQUESTS]
        assert len({item.id for item in rig.obeying.taken}) == len(REQUESTS)


def _fields(request: object) -> dict[str, object]:
    names = request.__struct_fields__  # type: ignore[attr-defined]
    return {name: getattr(request, name) for name in names if name != "id"}


def test_a_refusal_comes_back_with_its_reason(messenger: Messenger) -> None:
    with controlling() as rig:
        rig.obeying.answer = lambda command: command.answer(Reply(ok=False, code="refused", error="no more objects"))
        messenger.start()
        messenger.put(rig.endpoint, Ask(4, REQUESTS[0]))
        outcomes: list = []
        wait_for(lambda: outcomes.extend(messenger.take()) or outcomes, 30)
        assert (outcomes[0].token, outcomes[0].reply.code, outcomes[0].reply.error) == (4, "refused", "no more objects")


def test_nobody_there_is_told_and_more_than_can_wait_is_refused_at_once(
    messenger: Messenger, unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream.view.messenger.REPLY_LIMIT_S", 0.3)
    endpoint = f"tcp://127.0.0.1:{unused_tcp_port}"
    for token in range(MAX_WAITING + 1):
        messenger.put(endpoint, Ask(token, REQUESTS[0]))
    (refused,) = messenger.take()
    assert (refused.token, refused.error) == (MAX_WAITING, f"{MAX_WAITING} commands are waiting already")
    messenger.start()
    outcomes: list = []
    wait_for(lambda: outcomes.extend(messenger.take()) or outcomes, 30)
    assert outcomes[0].reply is None and f"no answer from {endpoint}" in outcomes[0].error
