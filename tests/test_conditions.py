"""The board: what capture and tracking say of a camera, as the one state that is published."""

from __future__ import annotations

import pytest

from stream.conditions import ConditionBoard
from stream.frame import CameraCondition, CameraState

ONLINE, OFFLINE, FROZEN = CameraCondition.ONLINE, CameraCondition.OFFLINE, CameraCondition.FROZEN
PAUSED, UNPROMPTED, LOST = CameraCondition.PAUSED, CameraCondition.UNPROMPTED, CameraCondition.LOST


class Sink:
    def __init__(self) -> None:
        self.states: list[CameraState] = []

    def put_state(self, state: CameraState) -> None:
        self.states.append(state)


@pytest.fixture
def sink() -> Sink:
    return Sink()


@pytest.fixture
def board(sink: Sink) -> ConditionBoard:
    return ConditionBoard(sink)


def source(condition: CameraCondition, reason: str = "", *, camera: str = "a", epoch: int = 0, utc_ns: int = 5):
    return CameraState(camera, epoch, condition, reason, utc_ns)


def told(sink: Sink) -> list[tuple[CameraCondition, str]]:
    return [(state.condition, state.reason) for state in sink.states]


def test_an_online_camera_is_what_tracking_says(board: ConditionBoard, sink: Sink) -> None:
    board.put_state(source(ONLINE))
    board.put_tracking("a", UNPROMPTED, "no object")
    board.put_tracking("a", LOST, "2 objects")
    board.put_tracking("a", ONLINE)
    assert told(sink) == [(ONLINE, ""), (UNPROMPTED, "no object"), (LOST, "2 objects"), (ONLINE, "")]


@pytest.mark.parametrize("condition", [OFFLINE, FROZEN, PAUSED])
def test_a_camera_that_is_not_online_is_what_its_source_says(
    board: ConditionBoard, sink: Sink, condition: CameraCondition
) -> None:
    board.put_state(source(condition, "why"))
    board.put_tracking("a", LOST, "2 objects")
    assert told(sink) == [(condition, "why")]


def test_what_tracking_said_is_not_forgotten_over_an_outage(board: ConditionBoard, sink: Sink) -> None:
    board.put_tracking("a", UNPROMPTED, "no object")
    for condition in (ONLINE, OFFLINE, ONLINE):
        board.put_state(source(condition))
    assert told(sink) == [(UNPROMPTED, "no object"), (OFFLINE, ""), (UNPROMPTED, "no object")]


def test_what_is_known_already_is_not_told_again(board: ConditionBoard, sink: Sink) -> None:
    for utc_ns in (5, 6, 7):
        board.put_state(source(ONLINE, utc_ns=utc_ns))
        board.put_tracking("a", ONLINE)
    assert len(sink.states) == 1


def test_a_problem_stands_in_every_cameras_state_until_it_is_mended(board: ConditionBoard, sink: Sink) -> None:
    for camera in "ab":
        board.put_state(source(ONLINE, camera=camera))
    board.put_problem("c.toml is wrong")
    board.put_state(source(OFFLINE, camera="b"))
    board.put_problem("")
    assert [(state.camera, state.problem) for state in sink.states[2:]] == [
        ("a", "c.toml is wrong"),
        ("b", "c.toml is wrong"),
        ("b", "c.toml is wrong"),
        ("a", ""),
        ("b", ""),
    ]


def test_a_backend_that_changes_is_told_by_every_camera(board: ConditionBoard, sink: Sink) -> None:
    board.put_backend("compiled")
    for camera in "ab":
        board.put_state(source(ONLINE, camera=camera))
    board.put_backend("tensorrt")
    board.put_backend("tensorrt")
    told_by = [(state.camera, state.backend) for state in sink.states]
    assert told_by == [("a", "compiled"), ("b", "compiled"), ("a", "tensorrt"), ("b", "tensorrt")]


def test_a_change_by_tracking_is_dated_when_it_came(board: ConditionBoard, sink: Sink) -> None:
    board.put_state(source(ONLINE, utc_ns=5))
    board.put_tracking("a", LOST, "")
    assert sink.states[0].utc_ns == 5 < sink.states[1].utc_ns


def test_a_camera_that_is_gone_leaves_nothing(board: ConditionBoard, sink: Sink) -> None:
    board.put_state(source(ONLINE))
    board.put_tracking("a", LOST, "")
    board.forget("a")
    board.put_tracking("a", LOST, "late")
    assert board.states() == {} and len(sink.states) == 2
    board.put_state(source(ONLINE, epoch=1))
    assert board.states()["a"].epoch == 1
