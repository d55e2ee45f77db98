"""Commands about objects, through a running worker: what they do, what they answer, and what is refused."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from test_worker import Bench, bench

from stream import inbox
from stream.command import Add, ObjectRequest, Refine, Remove, Rename, Reply, Reset, Seen, SentMask, Undo
from stream.config import CameraConfig, PromptConfig
from stream.device import DeviceLost
from stream.frame import CameraCondition
from stream.inbox import Command
from stream.roster import MAX_UNDO, MAX_UNDO_ROWS
from stream.worker import MAX_EXHAUSTED_TURNS

POINT = ((5.0, 5.0, 1),)


class Caller:
    """Sends commands to a rig's worker, and shows it pictures."""

    def __init__(self, rig: Bench) -> None:
        self.rig = rig
        self.seq = 0
        self.epoch = 0

    def ask(self, request: ObjectRequest) -> Reply:
        replies: list[Reply] = []
        answered = threading.Event()

        def answer(reply: Reply) -> None:
            replies.append(reply)
            answered.set()

        assert self.rig.worker.inbox.put(Command(request, answer))
        assert answered.wait(20), "no answer came"
        assert len(replies) == 1 and replies[0].id == request.id
        return replies[0]

    def show(self, *, size: tuple[int, int] = (48, 64), camera: int = 0) -> tuple[int, ...]:
        """One more picture; the ids on it."""
        num = len(self.rig.sink.masks)
        self.rig.put(camera, self.seq, epoch=self.epoch, size=size)
        self.seq += 1
        self.rig.sink.wait(num + 1)
        return self.rig.sink.masks[-1][1].object_ids

    @property
    def labels(self) -> dict[int, str]:
        return self.rig.sink.masks[-1][2]

    def seen(self, seq: int, **changed: int) -> Seen:
        return Seen(**({"epoch": self.epoch, "seq": seq, "width": 64, "height": 48} | changed))


def test_an_object_is_added_named_corrected_renamed_and_removed() -> None:
    with bench(1, 0) as rig:
        caller = Caller(rig)
        assert caller.show() == ()
        added = caller.ask(Add(id="a", camera="cam0", points=POINT, label="cup"))
        assert (added.ok, added.object_id, added.note, added.seen) == (True, 1, "", None)
        assert caller.show() == (1,) and caller.labels == {1: "cup"} and rig.sink.requests[-1] == ("a",)
        assert caller.show() == (1,) and rig.sink.requests[-1] == ()
        assert caller.ask(Refine(id="b", camera="cam0", object_id=1, points=POINT)).ok
        assert caller.ask(Rename(id="c", camera="cam0", object_id=1, new_id=7, label="bowl")).object_id == 7
        assert caller.show() == (7,) and caller.labels == {7: "bowl"} and rig.sink.requests[-1] == ("b", "c")
        assert caller.ask(Rename(camera="cam0", object_id=7, label="")).ok
        assert caller.show() == (7,) and caller.labels == {7: ""}
        assert caller.ask(Remove(camera="cam0", object_id=7)).ok
        assert caller.show() == () and rig.tracker._bank.num_rows == 0


def test_the_daemon_chooses_the_smallest_id_that_is_neither_configured_nor_used() -> None:
    with bench(1, 2) as rig:  # configured: 1 and 2
        caller = Caller(rig)
        caller.show()
        assert caller.ask(Remove(camera="cam0", object_id=1)).ok
        assert [caller.ask(Add(camera="cam0", points=POINT)).object_id for _ in range(2)] == [3, 4]
        assert caller.ask(Remove(camera="cam0", object_id=3)).ok
        assert caller.ask(Add(camera="cam0", box=(1, 1, 9, 9))).object_id == 3
        assert caller.show() == (2, 4, 3)


REFUSED: dict[str, tuple[ObjectRequest, str, str]] = {
    "unknown camera": (Add(camera="nope", points=POINT), "unknown", "there is no camera 'nope'; expected one of: cam0"),
    "unknown object": (Remove(camera="cam0", object_id=9), "unknown", "there is no object 9 on 'cam0'; known ids: 1"),
    "refine unknown": (Refine(camera="cam0", object_id=9, points=POINT), "unknown", "there is no object 9"),
    "rename unknown": (Rename(camera="cam0", object_id=9, new_id=1), "unknown", "there is no object 9"),
    "outside": (Add(camera="cam0", points=((65.0, 5, 1),)), "refused", "(65, 5) lies outside the frame"),
    "box outside": (Refine(camera="cam0", object_id=1, box=(70, 1, 80, 9)), "refused", "lies outside the frame"),
    "mask of another size": (
        Add(camera="cam0", mask=SentMask.of(np.ones((9, 9), np.bool_))), "refused", "the mask is 9x9; expected",
    ),
    "empty mask": (Add(camera="cam0", mask=SentMask.of(np.zeros((48, 64), np.bool_))), "refused", "no pixel set"),
    "id in use": (Rename(camera="cam0", object_id=1, new_id=2), "refused", "object id 2 is in use"),
    "nothing to undo": (Undo(camera="cam0"), "refused", "nothing to take back"),
    "another epoch": (
        Add(camera="cam0", points=POINT, seen=Seen(epoch=3, seq=0, width=64, height=48)), "stale", "of epoch 3",
    ),
    "another size": (
        Add(camera="cam0", points=POINT, seen=Seen(epoch=0, seq=0, width=60, height=48)), "stale", "is 60x48",
    ),
}  # fmt: skip


def test_what_cannot_be_done_is_refused_with_the_reason_and_changes_nothing() -> None:
    with bench(1, 2, watched=True) as rig:
        caller = Caller(rig)
        caller.show()
        for name, (request, code, text) in REFUSED.items():
            reply = caller.ask(request)
            assert not reply.ok and reply.code == code and text in reply.error, (name, reply)
            assert "\n" not in reply.error
        assert caller.show() == (1, 2) and rig.sink.requests[-1] == ()
        assert rig.worker.error is None and rig.tracker._bank.num_rows == 2


def test_a_mask_is_taken_and_ends_a_bomb_before_it_is_unpacked() -> None:
    mask = np.zeros((48, 64), np.bool_)
    mask[4:20, 5:30] = True
    with bench(1, 0) as rig:
        caller = Caller(rig)
        caller.show()
        assert caller.ask(Add(camera="cam0", mask=SentMask.of(mask))).ok and caller.show() == (1,)
        huge = SentMask.of(np.ones((16384, 16384), np.bool_))
        assert "the mask is 16384x16384" in caller.ask(Add(camera="cam0", mask=huge)).error


def test_there_are_at_most_so_many_objects() -> None:
    with bench(2, 1, max_objects=4) as rig:
        caller = Caller(rig)
        caller.show(camera=0), caller.show(camera=1)
        for camera in ("cam0", "cam1"):
            assert caller.ask(Add(camera=camera, points=POINT)).ok
        reply = caller.ask(Add(camera="cam1", points=POINT))
        assert (reply.code, reply.error) == ("refused", "there are 4 objects; expected at most 4 (max_objects)")
        assert caller.ask(Add(camera="cam1", object_id=1, points=POINT)).ok, "a known one may be prompted anew"
        assert caller.ask(Remove(camera="cam0", object_id=1)).ok
        assert caller.ask(Add(camera="cam1", points=POINT)).ok


# ---- what the person saw


def test_a_prompt_is_decoded_on_the_picture_that_was_seen() -> None:
    with bench(1, 0, watched=True) as rig:
        caller = Caller(rig)
        for _ in range(5):
            caller.show()
        assert len(rig.engine.encoded) == 5, "a camera that is watched is encoded, also without objects"
        reply = caller.ask(Add(id="x", camera="cam0", points=POINT, seen=caller.seen(2)))
        assert reply.ok and reply.seen == caller.seen(2) and reply.note == ""
        assert len(rig.engine.tracked) == 2, "it followed the two pictures since then"
        assert caller.show() == (1,) and rig.sink.requests[-1] == ("x",)
        assert rig.tracker._bank.age(1) == 4
        reply = caller.ask(Refine(camera="cam0", object_id=1, points=POINT, seen=caller.seen(4)))
        assert reply.ok and reply.seen == caller.seen(4)


def test_a_picture_that_is_not_remembered_falls_back_to_the_next_and_says_so() -> None:
    for watched in (False, True):
        with bench(1, 0, watched=watched) as rig:
            caller = Caller(rig)
            for _ in range(18):
                caller.show()
            for seq in (1, 99):
                reply = caller.ask(Add(camera="cam0", points=POINT, seen=caller.seen(seq)))
                assert reply.ok and reply.seen is None and "is not remembered" in reply.note
            assert caller.show() == (1, 2)


def test_many_late_prompts_do_not_stop_the_masks() -> None:
    with bench(1, 1, watched=True) as rig:
        caller = Caller(rig)
        for _ in range(14):
            caller.show()
        track, answered = rig.engine.track, []

        def slow_track(*args: Any) -> Any:
            threading.Event().wait(0.01)
            return track(*args)

        rig.engine.track = slow_track  # type: ignore[method-assign]
        for _ in range(20):  # each follows ten pictures, so a tenth of a second
            request = Add(camera="cam0", object_id=1, points=POINT, seen=caller.seen(3))
            assert rig.worker.inbox.put(Command(request, answered.append))
        caller.show()
        assert len(answered) <= 10
        while len(answered) < 20:
            caller.show()
        assert all(reply.ok for reply in answered)


def test_before_the_first_picture_nothing_can_be_prompted() -> None:
    with bench(1, 0) as rig:
        caller = Caller(rig)
        for seen in (None, caller.seen(0)):
            reply = caller.ask(Add(camera="cam0", points=POINT, seen=seen))
            assert reply.code == "busy" and "no picture of 'cam0' has come yet" in reply.error
        assert caller.ask(Reset(camera="cam0")).note == "there was no object"
        assert caller.show() == ()
        assert caller.ask(Add(camera="cam0", points=POINT)).ok


def test_pictures_are_forgotten_some_seconds_after_nobody_watches() -> None:
    with bench(1, 1, watched=True) as rig:
        caller = Caller(rig)
        caller.show()
        assert "cam0" in rig.tracker._history
        rig.sink.watched = False
        caller.show()
        assert "cam0" in rig.tracker._history
        rig.put(0, caller.seq, later_s=6.0)
        rig.sink.wait(3)
        assert "cam0" not in rig.tracker._history and rig.tracker._history.num_bytes() == 0


def test_another_epoch_forgets_what_people_did_and_prompts_as_configured(caplog: pytest.LogCaptureFixture) -> None:
    with bench(1, 1, watched=True) as rig:
        caller = Caller(rig)
        caller.show()
        assert caller.ask(Rename(camera="cam0", object_id=1, new_id=5, label="mine")).ok
        assert caller.ask(Add(camera="cam0", points=POINT)).object_id == 2
        assert caller.show() == (5, 2)
        assert caller.ask(Add(id="late", camera="cam0", points=POINT)).object_id == 3
        caller.epoch = 1
        assert caller.show() == (1,) and caller.labels == {1: "thing 0"} and rig.sink.requests[-1] == ()
        assert "a prompt was dropped: object 3 was prompted for a picture before" in caplog.text
        assert caller.ask(Undo(camera="cam0")).code == "refused"
        assert caller.ask(Add(camera="cam0", points=POINT, seen=caller.seen(0, epoch=0))).code == "stale"
        assert caller.ask(Add(camera="cam0", points=POINT, seen=caller.seen(0))).note != "", "epoch 1 has no picture 0"


# ---- undo


Act = Callable[[Caller], ObjectRequest]
UNDONE: dict[str, Sequence[ObjectRequest]] = {
    "add": [Add(camera="cam0", points=POINT, label="new")],
    "add again": [Add(camera="cam0", object_id=1, points=POINT, label="other")],
    "refine": [Refine(camera="cam0", object_id=2, points=POINT)],
    "remove": [Remove(camera="cam0", object_id=1)],
    "rename": [Rename(camera="cam0", object_id=1, new_id=9)],
    "relabel": [Rename(camera="cam0", object_id=1, label="other")],
    "rename and relabel": [Rename(camera="cam0", object_id=1, new_id=9, label="other")],
    "reset": [Reset(camera="cam0")],
    "several": [Remove(camera="cam0", object_id=1), Add(camera="cam0", object_id=1, points=POINT, label="x"),
                Rename(camera="cam0", object_id=1, new_id=3), Reset(camera="cam0"), Add(camera="cam0", points=POINT)],
}  # fmt: skip


@pytest.mark.parametrize("shown", [False, True])
@pytest.mark.parametrize("name", UNDONE)
def test_undo_takes_back_ids_labels_and_memory(name: str, shown: bool) -> None:
    """With and without pictures between the commands."""
    with bench(1, 2) as rig:
        caller = Caller(rig)
        for _ in range(3):
            caller.show()
        before = {i: rig.tracker.snapshot(i, camera="cam0").memory for i in (1, 2)}
        for request in UNDONE[name]:
            assert caller.ask(request).ok
            if shown:
                caller.show()
        for _ in UNDONE[name]:
            reply = caller.ask(Undo(camera="cam0"))
            assert reply.ok and reply.note.startswith("taken back: ")
        assert caller.ask(Undo(camera="cam0")).error == "there is nothing to take back"
        for object_id, memory in before.items():
            found = rig.tracker.snapshot(object_id, camera="cam0").memory
            assert memory is not None and found is not None
            if not shown:
                assert found.age == memory.age and torch.equal(found.memory_snc, memory.memory_snc)
                np.testing.assert_array_equal(found.memory_times_s, memory.memory_times_s)
            assert memory.age <= found.age <= memory.age + len(UNDONE[name]) * shown
        assert set(caller.show()) == {1, 2} and caller.labels == {1: "thing 0", 2: "thing 1"}


def test_undo_goes_back_a_bounded_number_of_commands() -> None:
    with bench(1, 0) as rig:
        caller = Caller(rig)
        caller.show()
        for _ in range(MAX_UNDO + 3):
            assert caller.ask(Add(camera="cam0", points=POINT)).ok
        assert [caller.ask(Undo(camera="cam0")).ok for _ in range(MAX_UNDO + 1)] == [True] * MAX_UNDO + [False]
        assert caller.show() == (1, 2, 3)


def test_undo_holds_a_bounded_number_of_memories() -> None:
    """Two resets together have too many: the first cannot be taken back any more, the second can."""
    with bench(1, 0) as rig:
        caller = Caller(rig)
        caller.show()
        for num in (MAX_UNDO_ROWS - 2, 3):
            for _ in range(num):
                assert caller.ask(Add(camera="cam0", points=POINT)).ok
            caller.show()
            assert caller.ask(Reset(camera="cam0")).ok
        taken = []
        while (reply := caller.ask(Undo(camera="cam0"))).ok:
            taken.append(reply.note.removeprefix("taken back: "))
        assert taken == ["reset", "add 3", "add 2", "add 1"] and caller.show() == ()


def test_what_was_undone_may_be_asked_for_again() -> None:
    with bench(1, 0, watched=True) as rig:
        caller = Caller(rig)
        for _ in range(3):
            caller.show()
            assert caller.ask(Add(camera="cam0", points=POINT, seen=caller.seen(caller.seq - 1))).object_id == 1
            assert caller.ask(Undo(camera="cam0")).ok
            assert caller.show() == ()
        assert rig.tracker._bank.num_rows == 0


# ---- cameras, states, faults


def test_cameras_come_and_go_while_the_worker_runs() -> None:
    with bench(2, 1) as rig:
        caller = Caller(rig)
        caller.show(camera=0), caller.show(camera=1)
        rig.worker.set_feeds(rig.feeds[1:])
        assert caller.ask(Remove(camera="cam0", object_id=1)).code == "unknown"
        assert rig.tracker._bank.num_rows == 1 and rig.worker.object_status("cam0") == ()
        new = rig.feed(CameraConfig("cam2", "testsrc://", prompts=(PromptConfig(4, points=POINT),)))
        rig.feeds = [rig.feeds[0], rig.feeds[1], new]
        rig.worker.set_feeds([rig.feeds[1], new])
        assert caller.show(camera=2) == (4,) and caller.show(camera=1) == (1,)
        changed = CameraConfig("cam2", "testsrc://", prompts=(PromptConfig(5, points=POINT),))
        new.change(changed, new._feeder)
        assert caller.show(camera=2) == (4,), "the same epoch keeps its memory"
        caller.epoch = 1
        assert caller.show(camera=2) == (5,)


def test_a_camera_says_whether_it_has_objects_and_sees_them() -> None:
    with bench(1, 1) as rig:
        caller = Caller(rig)
        caller.show()
        (status,) = rig.worker.object_status("cam0")
        assert (status.id, status.label, status.state, status.score) == (1, "thing 0", "tracked", 1.0)
        rig.engine.score = -1.0
        rig.put(0, 1, later_s=5.0)
        rig.sink.wait(2)
        assert rig.worker.object_status("cam0")[0].state == "lost"
        rig.engine.score = 1.0
        caller.seq = 2
        caller.show()
        assert caller.ask(Reset(camera="cam0")).ok
        caller.show()
    conditions = [(state.condition, state.reason) for state in rig.sink.states]
    online, lost = (CameraCondition.ONLINE, ""), (CameraCondition.LOST, "its only object is lost")
    assert conditions == [online, lost, online, (CameraCondition.UNPROMPTED, "there is no object to track")]


def test_commands_that_wait_at_the_end_are_answered() -> None:
    rig = Bench(1, 0)
    replies: list[Reply] = []
    rig.worker.start()
    assert rig.worker.ready.wait(10)
    rig.put(0, 0)
    rig.sink.wait(1)
    rig.engine.gate.clear()
    rig.worker.inbox.put(Command(Add(camera="cam0", points=POINT), replies.append))
    rig.put(0, 1)
    while rig.feeds[0].ring.has_unread:
        rig.doorbell.wait(0.01)
    for number in range(5):
        assert rig.worker.inbox.put(Command(Reset(id=str(number), camera="cam0"), replies.append))
    rig.worker.stop()
    rig.engine.gate.set()
    rig.worker.join(10)
    assert [reply.code for reply in replies] == ["", *["stopping"] * 5]
    assert [reply.id for reply in replies[1:]] == list("01234")


def test_a_command_that_ends_the_thread_is_answered_as_well() -> None:
    rig = Bench(1, 1)
    replies: list[Reply] = []
    rig.tracker.remove = lambda *args, **kwargs: 1 / 0  # type: ignore[method-assign]
    rig.worker.start()
    rig.put(0, 0)
    rig.sink.wait(1)
    for request in (Remove(id="a", camera="cam0", object_id=1), Reset(id="b", camera="cam0")):
        rig.worker.inbox.put(Command(request, replies.append))
    rig.worker.join(10)
    assert isinstance(rig.worker.error, ZeroDivisionError)
    assert [(reply.id, reply.code) for reply in replies] == [("a", "stopping"), ("b", "stopping")]


def fail(rig: Bench, error: Exception, times: int) -> None:
    """Let the engine raise at its next calls of `encode`."""
    encode, left = rig.engine.encode, [times]

    def encode_or_fail(frames: torch.Tensor) -> Any:
        if left[0]:
            left[0] -= 1
            raise error
        return encode(frames)

    rig.engine.encode = encode_or_fail  # type: ignore[method-assign]


def test_an_exhausted_device_loses_pictures_but_no_command() -> None:
    with bench(1, 0) as rig:
        caller = Caller(rig)
        caller.show()
        fail(rig, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."), MAX_EXHAUSTED_TURNS - 1)
        assert caller.ask(Add(id="kept", camera="cam0", points=POINT)).ok
        for seq in range(1, MAX_EXHAUSTED_TURNS):
            rig.put(0, seq)
            while rig.worker.num_exhausted < seq:
                rig.doorbell.wait(0.01)
        caller.seq = MAX_EXHAUSTED_TURNS
        assert caller.show() == (1,) and rig.sink.requests[-1] == ("kept",)
        assert rig.worker.num_exhausted == MAX_EXHAUSTED_TURNS - 1 and rig.feeds[0].ring.num_leased == 0


def test_a_late_prompt_that_exhausts_the_device_leaves_everything_as_it_was() -> None:
    with bench(1, 1, watched=True) as rig:
        caller = Caller(rig)
        for _ in range(6):
            caller.show()
        before = rig.tracker.snapshot(1, camera="cam0").memory
        track, left = rig.engine.track, [2]

        def track_or_fail(*args: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
            return track(*args)

        for object_id in (1, None):
            left[0] = 2
            rig.engine.track = track_or_fail  # type: ignore[method-assign]
            reply = caller.ask(Add(camera="cam0", object_id=object_id, points=POINT, seen=caller.seen(1)))
            assert (reply.ok, reply.code) == (False, "busy") and "exhausted" in reply.error
            rig.engine.track = track  # type: ignore[method-assign]
            after = rig.tracker.snapshot(1, camera="cam0").memory
            assert before is not None and after is not None and after.age == before.age
            assert torch.equal(after.memory_snc, before.memory_snc) and rig.tracker.object_ids("cam0") == (1,)
        assert caller.show() == (1,)


def test_a_device_that_stays_exhausted_ends_the_thread() -> None:
    rig = Bench(1, 1)
    fail(rig, torch.OutOfMemoryError("CUDA out of memory."), MAX_EXHAUSTED_TURNS)
    rig.worker.start()
    for seq in range(MAX_EXHAUSTED_TURNS):
        rig.put(0, seq)
        while rig.worker.is_alive() and rig.worker.num_exhausted <= seq:
            rig.doorbell.wait(0.01)
    rig.worker.join(10)
    assert isinstance(rig.worker.error, torch.OutOfMemoryError) and rig.feeds[0].ring.num_leased == 0


def test_a_lost_device_ends_the_thread_as_such() -> None:
    rig = Bench(1, 1)
    fail(rig, RuntimeError("CUDA error: an illegal memory access was encountered\nSearch for it."), 1)
    rig.worker.start()
    rig.put(0, 0)
    rig.worker.join(10)
    assert isinstance(rig.worker.error, DeviceLost) and "illegal memory access" in str(rig.worker.error)


def test_a_prompt_that_fits_no_longer_is_dropped_and_the_worker_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    with bench(1, 1) as rig:
        caller = Caller(rig)
        caller.show(size=(480, 640))
        assert caller.ask(Add(camera="cam0", points=((600.0, 400.0, 1),))).ok
        assert caller.show(size=(48, 64)) == (1,)
        assert "cam:cam0: a prompt was dropped: the point (600, 400) lies outside" in caplog.text
        assert rig.worker.error is None


def test_a_full_inbox_refuses_and_every_command_taken_is_answered() -> None:
    with bench(1, 0) as rig:
        caller = Caller(rig)
        caller.show()
        answered: list[Reply] = []
        rig.engine.gate.clear()
        taken = sum(
            rig.worker.inbox.put(Command(Reset(camera="cam0"), answered.append)) for _ in range(3 * inbox.CAPACITY)
        )
        rig.engine.gate.set()
        assert caller.show() == ()
        assert taken >= inbox.CAPACITY and len(answered) == taken
