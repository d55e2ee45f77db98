"""Clicks and keys become commands, each about the picture that was clicked on; the status line tells what happened."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from view_rig import message

from stream.client import MasksMessage
from stream.command import Add, ObjectRequest, Refine, Remove, Rename, Reply, Seen, Undo
from stream.view.asking import MAX_OPEN, SEEN_LIMIT_S, Ask, Outcome
from stream.view.choice import Choice
from stream.view.editor import NO_COMMANDS, NOT_HEARD, NOTHING, Editor
from stream.view.gesture import Box, Click, Spot
from stream.view.window import Button

ONE, TWO = (10, 10, 50, 50), (30, 30, 100, 100)


class Scene:
    """An editor, a picture on the screen, and a daemon that answers when it is told to."""

    def __init__(self, *, cameras: tuple[str, ...] = ("a",), can_command: bool | None = True) -> None:
        self.choice = Choice()
        self.choice.set_names(cameras)
        self.editor = Editor(self.choice)
        self.editor.can_command = can_command
        self.now_s = 0.0
        self.masks = message()
        self.see(message(7, {1: ONE, 2: TWO}, labels={1: "cup"}))

    def see(self, masks: MasksMessage) -> None:
        self.masks = masks
        self.editor.note(masks)
        self.editor.see(masks, self.now_s)

    def click(self, x: int, y: int, button: Button = Button.LEFT) -> None:
        self.editor.point(Click(button, Spot(self.masks, x, y)))

    def type(self, *keys: str) -> None:
        for key in keys:
            self.editor.type(key)

    def asked(self) -> Ask:
        (ask,) = self.editor.take_asks()
        return ask

    def request(self) -> ObjectRequest:
        return self.asked().request

    def obey(self, object_id: int | None = None, *, request_id: str = "r1", note: str = "") -> None:
        self.editor.answer(Outcome(self.asked().token, Reply(id=request_id, object_id=object_id, note=note)))

    def select(self, x: int, y: int) -> None:
        self.click(x, y, Button.MIDDLE)


def test_a_click_adds_an_object_on_the_picture_that_was_clicked_on() -> None:
    scene = Scene()
    scene.click(100, 20)
    assert scene.editor.said == "adding an object ..."
    seen = Seen(epoch=0, seq=7, width=160, height=120, run=1)
    assert scene.request() == Add(camera="a", points=((100, 20, 1),), seen=seen)


def test_the_new_object_is_selected_so_that_the_next_clicks_correct_it() -> None:
    scene = Scene()
    scene.click(100, 20)
    scene.obey(3)
    assert scene.editor.said == "object 3 added: 1 point"
    scene.see(message(8, {3: ONE}, requests=("r1",)))
    scene.click(20, 30)
    seen = Seen(epoch=0, seq=8, width=160, height=120, run=1)
    assert scene.request() == Refine(camera="a", object_id=3, points=((20, 30, 1),), seen=seen)
    scene.click(22, 33, Button.RIGHT)
    assert scene.request() == Refine(camera="a", object_id=3, points=((22, 33, 0),), seen=seen)


@pytest.mark.parametrize(("button", "text"), [(Button.LEFT, "this belongs"), (Button.RIGHT, "this does not belong")])
def test_a_correction_is_told(button: Button, text: str) -> None:
    scene = Scene()
    scene.select(20, 20)
    scene.click(15, 40, button)
    scene.obey(1, note="taken on the newest picture")
    assert scene.editor.said == f"object 1 corrected: {text} to it (taken on the newest picture)"


def test_n_makes_a_new_object_although_one_is_selected() -> None:
    scene = Scene()
    scene.select(20, 20)
    scene.type("n")
    scene.click(20, 20)
    assert isinstance(scene.request(), Add)
    scene.click(20, 20)
    assert isinstance(scene.request(), Refine), "N holds for one click"


def test_a_box_shows_the_selected_object_anew_and_else_a_new_one() -> None:
    scene = Scene()
    box = Box(scene.masks, (5, 6, 40, 50))
    seen = Seen(epoch=0, seq=7, width=160, height=120, run=1)
    scene.editor.point(box)
    assert scene.request() == Add(camera="a", box=(5, 6, 40, 50), seen=seen)
    scene.select(20, 20)
    scene.editor.point(box)
    assert scene.request() == Add(camera="a", box=(5, 6, 40, 50), object_id=1, seen=seen)
    scene.type("n")
    scene.editor.point(box)
    scene.obey(4)
    assert scene.editor.said == "object 4 added: a box"
    assert scene.editor.selected("a") == 4


def test_the_middle_button_selects_what_is_there_the_smaller_first_and_else_nothing() -> None:
    scene = Scene()
    scene.select(40, 40)
    assert scene.editor.selected("a") == 1, "in both ellipses; the smaller one was meant"
    scene.select(80, 80)
    assert scene.editor.selected("a") == 2
    scene.select(11, 11)
    assert scene.editor.selected("a") is None, "inside the box of 1, beside its mask"
    assert scene.editor.take_asks() == []


def test_space_goes_through_all_objects_and_then_none() -> None:
    scene = Scene()
    found = []
    for _ in range(4):
        scene.type(" ")
        found.append(scene.editor.selected("a"))
    assert found == [1, 2, None, 1]


def test_a_right_click_without_a_selected_object_explains_itself() -> None:
    scene = Scene()
    scene.click(20, 20, Button.RIGHT)
    assert (scene.editor.said, scene.editor.take_asks()) == (NOTHING, [])
    scene.type("n")
    scene.click(20, 20, Button.RIGHT)
    assert scene.editor.said.startswith("a new object begins with a left click")
    assert scene.editor.is_new


def test_clicks_wait_for_the_id_of_a_new_object() -> None:
    scene = Scene()
    scene.click(100, 20)
    add = scene.asked()
    scene.click(104, 22)
    scene.click(90, 30, Button.RIGHT)
    assert scene.editor.take_asks() == []
    scene.editor.answer(Outcome(add.token, Reply(id="r1", object_id=5)))
    requests = [ask.request for ask in scene.editor.take_asks()]
    assert [(item.object_id, item.points) for item in requests if isinstance(item, Refine)] == [
        (5, ((104, 22, 1),)),
        (5, ((90, 30, 0),)),
    ]


def test_clicks_that_waited_for_an_object_that_was_refused_are_dropped() -> None:
    scene = Scene()
    scene.click(100, 20)
    add = scene.asked()
    scene.click(104, 22)
    scene.editor.answer(Outcome(add.token, Reply(id="r1", ok=False, code="refused", error="there are 64 objects")))
    assert scene.editor.said == "refused: there are 64 objects"
    assert scene.editor.take_asks() == []
    assert scene.editor.selected("a") is None


def test_a_prompt_is_drawn_until_a_picture_shows_its_effect() -> None:
    scene = Scene()
    scene.click(100, 20)
    assert len(scene.editor.open("a")) == 1
    scene.obey(3)
    scene.see(message(8, {1: ONE}))
    assert len(scene.editor.open("a")) == 1
    scene.editor.note(message(10, {3: ONE}, requests=("r1",)))  # masks whose picture was not sent
    scene.see(message(9, {1: ONE}))
    assert len(scene.editor.open("a")) == 1
    scene.see(message(11, {3: ONE}))
    assert scene.editor.open("a") == []


def test_masks_that_come_before_the_reply_count_too() -> None:
    scene = Scene()
    scene.click(100, 20)
    ask = scene.asked()
    scene.see(message(8, {3: ONE}, requests=("r1",)))
    scene.editor.answer(Outcome(ask.token, Reply(id="r1", object_id=3)))
    scene.see(message(9, {3: ONE}))
    assert scene.editor.open("a") == []
    assert scene.editor.selected("a") == 3


def test_a_refused_prompt_is_not_drawn_any_more() -> None:
    scene = Scene()
    scene.click(100, 20)
    ask = scene.asked()
    scene.editor.answer(Outcome(ask.token, Reply(id="r", ok=False, code="stale", error="the picture has another size")))
    assert scene.editor.open("a") == []
    assert scene.editor.said == "stale: the picture has another size"


def test_no_answer_is_told() -> None:
    scene = Scene()
    scene.click(100, 20)
    scene.editor.answer(Outcome(scene.asked().token, None, "no answer from tcp://x for 5 s"))
    assert scene.editor.said == "no answer from tcp://x for 5 s"
    assert scene.editor.open("a") == []


def test_a_prompt_whose_effect_never_comes_is_forgotten() -> None:
    scene = Scene()
    scene.click(100, 20)
    scene.obey(3)
    scene.now_s = 1e12 + SEEN_LIMIT_S
    scene.see(message(8, {1: ONE}))
    assert scene.editor.open("a") == []


def test_a_new_run_of_the_daemon_forgets_what_the_old_one_was_asked() -> None:
    scene = Scene()
    scene.select(20, 20)
    scene.click(30, 30)
    ask = scene.asked()
    scene.see(message(0, {1: ONE}, run=2))
    assert scene.editor.said == "the daemon was started anew"
    assert scene.editor.open("a") == []
    assert scene.editor.selected("a") == 1, "the object was restored"
    scene.editor.answer(Outcome(ask.token, None, "no answer"))
    assert scene.editor.said == "the daemon was started anew"
    scene.see(message(0, {}, run=3))
    assert scene.editor.selected("a") is None


def test_an_object_that_is_gone_is_not_selected_any_more() -> None:
    scene = Scene()
    scene.select(20, 20)
    scene.see(message(8, {2: TWO}))
    assert scene.editor.selected("a") is None


def test_del_removes_and_z_takes_back() -> None:
    scene = Scene()
    scene.type("delete")
    assert (scene.editor.said, scene.editor.take_asks()) == (NOTHING, [])
    scene.select(20, 20)
    scene.type("delete")
    assert scene.editor.said == "removing object 1 ..."
    ask = scene.asked()
    assert ask.request == Remove(camera="a", object_id=1)
    scene.editor.answer(Outcome(ask.token, Reply(id="r1", object_id=1)))
    assert scene.editor.said == "object 1 removed; Z brings it back"
    scene.type("z")
    ask = scene.asked()
    assert ask.request == Undo(camera="a")
    scene.editor.answer(Outcome(ask.token, Reply(id="r2", note="taken back: remove 1")))
    assert scene.editor.said == "taken back: remove 1"


def test_a_name_is_typed_in_the_window() -> None:
    scene = Scene()
    scene.select(20, 20)
    scene.type("r")
    assert scene.editor.line().startswith("name of object 1: cup_")
    scene.type("backspace", "backspace", "backspace", *"Big q s", "enter")
    ask = scene.asked()
    assert ask.request == Rename(camera="a", object_id=1, label="Big q s")
    scene.editor.answer(Outcome(ask.token, Reply(id="r1", object_id=1)))
    assert scene.editor.line() == "object 1 is called 'Big q s' now"


def test_escape_leaves_what_is_open_and_at_last_the_window() -> None:
    scene = Scene()
    scene.select(20, 20)
    scene.type("r", "x", "escape")
    assert scene.editor.name is None and scene.editor.take_asks() == []
    scene.type("h")
    assert scene.editor.is_help
    scene.type("escape", "n", "escape")
    assert not scene.editor.is_help and not scene.editor.is_new and not scene.editor.is_over
    scene.type("escape")
    assert scene.editor.is_over


def test_q_closes_unless_a_name_is_typed() -> None:
    scene = Scene()
    scene.select(20, 20)
    scene.type("r", "q")
    assert not scene.editor.is_over
    scene.type("escape", "q")
    assert scene.editor.is_over


@pytest.mark.parametrize(("can_command", "text"), [(False, NO_COMMANDS), (None, NOT_HEARD)])
def test_without_a_control_endpoint_clicks_and_keys_say_so(can_command: bool | None, text: str) -> None:
    scene = Scene(can_command=can_command)
    scene.click(20, 20)
    assert scene.editor.said == text
    scene.select(20, 20)
    assert scene.editor.selected("a") == 1, "looking is free"
    for key in ("n", "r", "delete", "z"):
        scene.editor.said = ""
        scene.type(key)
        assert scene.editor.said == text
    assert scene.editor.take_asks() == []


def test_keys_switch_cameras_and_each_keeps_its_selection() -> None:
    scene = Scene(cameras=("a", "b", "c"))
    scene.select(20, 20)
    scene.type("tab")
    assert (scene.choice.camera, scene.editor.selected("b"), scene.editor.said) == ("b", None, "camera b")
    scene.type("3")
    assert scene.choice.camera == "c"
    scene.type("tab")
    assert (scene.choice.camera, scene.editor.selected("a")) == ("a", 1)
    scene.type("4")
    assert scene.editor.said == "there is no camera 4: the daemon has 3"


def test_in_the_grid_a_click_chooses_a_camera_and_nothing_else() -> None:
    scene = Scene(cameras=("a", "b"))
    scene.type("g")
    assert scene.choice.is_grid
    scene.type("delete", "n")
    assert scene.editor.said == "choose a camera first: click on it"
    scene.masks = message(3, {5: ONE}, camera="b")
    scene.click(20, 20)
    assert (scene.choice.camera, scene.choice.is_grid, scene.editor.take_asks()) == ("b", False, [])


def test_while_a_video_is_saved_its_camera_stays() -> None:
    choice = Choice("a", is_fixed=True)
    choice.set_names(("a", "b"))
    editor = Editor(choice)
    for key in ("tab", "g", "2"):
        editor.said = ""
        editor.type(key)
        assert editor.said == "a video is being saved: its camera stays"
    assert choice.camera == "a" and not choice.is_grid


def test_cameras_that_come_and_go_are_told() -> None:
    choice = Choice()
    assert choice.set_names(("a", "b")) == ""
    assert choice.camera == "a"
    assert choice.set_names(("a", "b", "c")) == "the daemon has a new camera c"
    assert choice.set_names(("b", "c")) == "the daemon has no camera a any more; Tab: the next one"
    assert choice.camera == "a", "it may come back"
    choice.choose_next()
    assert choice.camera == "b"
    assert choice.set_names(("b",)) == "the daemon has no camera c any more"


def test_s_asks_once_for_a_picture() -> None:
    scene = Scene()
    scene.type("s")
    assert scene.editor.take_wish_for_picture()
    assert not scene.editor.take_wish_for_picture()


KEYS = ["q", "escape", "h", "n", "r", " ", "delete", "z", "s", "g", "tab", "enter", "backspace", "1", "9", "x", ""]
STEPS = st.one_of(
    st.tuples(st.just("key"), st.sampled_from(KEYS)),
    st.tuples(st.just("click"), st.tuples(st.integers(0, 159), st.integers(0, 119), st.sampled_from(list(Button)))),
    st.tuples(st.just("box"), st.tuples(st.integers(0, 80), st.integers(0, 60))),
    st.tuples(st.just("see"), st.tuples(st.sampled_from("ab"), st.integers(1, 2), st.integers(0, 4))),
    st.tuples(st.just("answer"), st.booleans()),
    st.tuples(st.just("cameras"), st.sampled_from([("a",), ("a", "b"), ("b",), ()])),
)


@given(st.lists(STEPS, max_size=60))
def test_whatever_happens_every_command_is_about_a_shown_picture_and_nothing_grows(steps: list) -> None:
    scene = Scene(cameras=("a", "b"))
    asks: list[Ask] = []
    num_answered = 0
    for kind, value in steps:
        if kind == "key":
            scene.type(value)
        elif kind == "click":
            scene.click(*value)
        elif kind == "box":
            scene.editor.point(Box(scene.masks, (*value, value[0] + 9, value[1] + 9)))
        elif kind == "see":
            camera, run, num = value
            scene.see(message(0, dict.fromkeys(range(num), ONE), camera=camera, run=run))
        elif kind == "cameras":
            scene.editor.said = scene.choice.set_names(value)
            scene.editor.keep(scene.choice.kept)
        elif num_answered < len(asks):
            reply = Reply(id=f"r{num_answered}", ok=value, code="" if value else "busy", object_id=num_answered % 5)
            scene.editor.answer(Outcome(asks[num_answered].token, reply))
            num_answered += 1
        asks += scene.editor.take_asks()
        assert len(scene.editor.open("a")) + len(scene.editor.open("b")) <= MAX_OPEN
        assert scene.editor.line() is not None
    for ask in asks:
        seen = getattr(ask.request, "seen", None)
        assert seen is None or (seen.width, seen.height) == (160, 120)
