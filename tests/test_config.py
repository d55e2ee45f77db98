"""Configuration is strict: what is wrong is refused with its place and what was expected; what is right arrives."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.config import (
    CameraConfig,
    Config,
    ConfigError,
    EnhanceOptions,
    PromptConfig,
    PromptFlags,
    RefineOptions,
    config_from_flags,
    load_config,
    treatment_from_flags,
)
from stream.config.flags import camera_name

WHOLE = """
model = "sam2.1-hiera-tiny"
checkpoint = "tiny.pt"
device = "cuda:1"
dtype = "bf16"
backend = "tensorrt-rtx"
max_cond_frames = 3
bind = ["tcp://127.0.0.1:5560", "ipc:///run/user/0/sam2.ipc", "tcp://[::1]:*"]
mask_encoding = "coco_rle"
frames_fps = 10
jpeg_quality = 90
control = ["ipc:///run/user/0/sam2-control.ipc"]
http = "127.0.0.1:9464"
keys = "keys"
state = "state"
allow_cpu = true
wire_schemes = ["rtsps"]
max_cameras = 8
max_objects = 12
refine_as_cond = false

[[camera]]
name = "door"
source = "rtsp://user:secret@10.0.0.9/live"
rtsp_transport = "udp"
decoder = "nvdec"
max_fps = 12.5
credential = "door"
clock = "sender"
stall_s = 5
freeze_s = 0
memory_gap_s = 60
memory_policy = "motion"
camera_motion = true
refine = { fill_holes = 8, remove_specks = 60, smooth = 0.5, upsample = "guided", non_overlap = true }
enhance = { denoise = 0.5, low_light = 1 }
[[camera.prompt]]
object_id = 7
label = "person"
points = [[10, 20, 1], [30.5, 40, 0], [1, 2]]
box = [0, 0, 100, 200]
[[camera.prompt]]
object_id = 8
mask = "cup.png"
refine = { smooth = 0 }
memory_policy = "sam2"

[[camera]]
name = "clip"
source = "clip.mp4"
pace = "offline"
loop = true
frame_id = "robot/camera"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("tiny.pt", "cup.png", "clip.mp4"):
        (tmp_path / name).touch()
    return tmp_path


def load(folder: Path, text: str) -> Config:
    (folder / "c.toml").write_text(text)
    return load_config(folder / "c.toml")


def test_every_setting_arrives(folder: Path) -> None:
    assert load(folder, WHOLE) == Config(
        cameras=(
            CameraConfig(
                name="door",
                source="rtsp://user:secret@10.0.0.9/live",
                rtsp_transport="udp",
                decoder="nvdec",
                max_fps=12.5,
                credential="door",
                clock="sender",
                stall_s=5.0,
                freeze_s=0.0,
                memory_gap_s=60.0,
                memory_policy="motion",
                camera_motion=True,
                refine=RefineOptions(fill_holes=8, remove_specks=60, smooth=0.5, upsample="guided", non_overlap=True),
                enhance=EnhanceOptions(denoise=0.5, low_light=1.0),
                prompts=(
                    PromptConfig(7, "person", points=((10, 20, 1), (30.5, 40, 0), (1, 2, 1)), box=(0, 0, 100, 200)),
                    PromptConfig(
                        8,
                        mask=folder / "cup.png",
                        refine=RefineOptions(8, 60, smooth=0.0, upsample="guided", non_overlap=True),
                        memory_policy="sam2",
                    ),
                ),
            ),
            CameraConfig("clip", str(folder / "clip.mp4"), pace="offline", loop=True, frame_id="robot/camera"),
        ),
        model="sam2.1-hiera-tiny",
        checkpoint=folder / "tiny.pt",
        device="cuda:1",
        dtype="bf16",
        backend="tensorrt-rtx",
        max_cond_frames=3,
        bind=("tcp://127.0.0.1:5560", "ipc:///run/user/0/sam2.ipc", "tcp://[::1]:*"),
        mask_encoding="coco_rle",
        frames_fps=10.0,
        jpeg_quality=90,
        control=("ipc:///run/user/0/sam2-control.ipc",),
        http="127.0.0.1:9464",
        keys=folder / "keys",
        state=folder / "state",
        allow_cpu=True,
        wire_schemes=("rtsps",),
        max_cameras=8,
        max_objects=12,
        refine_as_cond=False,
    )


def test_an_empty_file_is_the_defaults(folder: Path) -> None:
    assert load(folder, "") == Config(cameras=())


@pytest.mark.parametrize(
    ("text", "endpoints"),
    [
        ("", ("tcp://127.0.0.1:5561",)),
        ("bind = ['ipc:///tmp/a']", ("ipc:///tmp/a-control",)),
        ("bind = ['tcp://[::1]:7000', 'ipc:///tmp/a']", ("tcp://[::1]:7001",)),
        ("bind = ['tcp://127.0.0.1:*']", ("tcp://127.0.0.1:*",)),
        ("bind = ['tcp://127.0.0.1:65535']", ("tcp://127.0.0.1:1",)),
        ("control = ['ipc:///tmp/b']", ("ipc:///tmp/b",)),
        ("control = []", ()),
    ],
)
def test_commands_are_taken_beside_the_first_endpoint_unless_told_where(
    folder: Path, text: str, endpoints: tuple[str, ...]
) -> None:
    assert load(folder, text).control_endpoints == endpoints


def test_with_keys_other_machines_may_be_served(folder: Path) -> None:
    config = load(folder, "bind = ['tcp://0.0.0.0:5560']\nkeys = 'keys'")
    assert config.bind == ("tcp://0.0.0.0:5560",) and config.control_endpoints == ("tcp://0.0.0.0:5561",)


def test_a_camera_is_named_in_its_frame() -> None:
    assert CameraConfig("door", "0").frame_id == "door_optical_frame"


CAMERA = '[[camera]]\nname = "a"\nsource = "0"\n'
PROMPT = CAMERA + "[[camera.prompt]]\nobject_id = 1\n"
WRONG = [
    ("modle = 'nano'", "modle", "model"),
    ("colour = 1", "colour", "one of the keys camera, model"),
    ("model = 'sam3'", "model", "one of nano"),
    ("model = 3", "model", "one of nano"),
    ("checkpoint = 'none.pt'", "checkpoint", "an existing file"),
    ("device = 'gpu'", "device", "auto, cpu, cuda or cuda:N"),
    ("dtype = 'int8'", "dtype", "one of auto, fp32"),
    ("backend = 'onnx'", "backend", "one of auto, eager, compiled, tensorrt, tensorrt-rtx"),
    ("max_cond_frames = 0", "max_cond_frames", "from 1 to 7"),
    ("max_cond_frames = true", "max_cond_frames", "from 1 to 7"),
    ("max_cond_frames = 2.0", "max_cond_frames", "from 1 to 7"),
    ("bind = 'tcp://127.0.0.1:1'", "bind", "a list of 1 to 8 endpoints"),
    ("bind = []", "bind", "a list of 1 to 8 endpoints"),
    ("bind = ['tcp://0.0.0.0:5560']", "bind[0]", "make keys"),
    ("bind = ['tcp://*:5560']", "bind[0]", "make keys"),
    ("bind = ['ipc:///x', 'tcp://192.168.1.4:1']", "bind[1]", "make keys"),
    ("bind = ['tcp://[::]:5560']", "bind[0]", "make keys"),
    ("bind = ['tcp://127.0.0.1']", "bind[0]", "tcp://127.0.0.1:PORT"),
    ("bind = ['tcp://127.0.0.1:99999']", "bind[0]", "tcp://127.0.0.1:PORT"),
    ("bind = ['udp://127.0.0.1:1']", "bind[0]", "tcp://127.0.0.1:PORT"),
    ("control = ['tcp://0.0.0.0:5561']", "control[0]", "make keys"),
    ("http = '0.0.0.0:9464'", "http", "a loopback address and a port"),
    ("http = '127.0.0.1'", "http", "a loopback address and a port"),
    ("http = 9464", "http", "a loopback address and a port"),
    ("state = ''", "state", "the path of a folder"),
    ("wire_schemes = ['file']", "wire_schemes[0]", "one of rtsp, rtsps, http, https"),
    ("max_cameras = 0", "max_cameras", "from 1 to 1024"),
    ("allow_cpu = 'yes'", "allow_cpu", "true or false"),
    (CAMERA + "stall_s = 0", "camera[0].stall_s", "seconds from 0.5"),
    (CAMERA + "freeze_s = -1", "camera[0].freeze_s", "0 (never)"),
    (CAMERA + "credential = '../x'", "camera[0].credential", "the name of a credential"),
    (CAMERA + "clock = 'ntp'", "camera[0].clock", "one of arrival, sender"),
    ("mask_encoding = 'png'", "mask_encoding", "one of bits, coco_rle, none"),
    ("frames_fps = nan", "frames_fps", "frames a second"),
    ("frames_fps = 1" + "0" * 400, "frames_fps", "frames a second"),
    ("jpeg_quality = 101", "jpeg_quality", "from 1 to 100"),
    ("camera = 1", "camera", "[[camera]] tables"),
    ("camera = [1]", "camera[0]", "a table"),
    ("[[camera]]\nname = 'a'", "camera[0].source", "required"),
    ("[[camera]]\nsource = '0'", "camera[0].name", "required"),
    ("[[camera]]\nname = 'a/b'\nsource = '0'", "camera[0].name", "1 to 64 of the characters"),
    ("[[camera]]\nname = 'a\\u0000'\nsource = '0'".replace("'a\\u0000'", '"a\\u0000"'), "camera[0].name", "1 to 64"),
    ("[[camera]]\nname = '" + "a" * 65 + "'\nsource = '0'", "camera[0].name", "1 to 64"),
    (CAMERA + CAMERA, "camera[1].name", "only once"),
    (CAMERA + "url = 'x'", "camera[0].url", "one of the keys name, source"),
    (CAMERA + "pace = 'fast'", "camera[0].pace", "one of live, offline"),
    (CAMERA + "loop = 1", "camera[0].loop", "true or false"),
    (CAMERA + "max_fps = 0", "camera[0].max_fps", "frames a second"),
    (CAMERA + "frame_id = ''", "camera[0].frame_id", "without blanks"),
    (CAMERA + "rtsp_transport = 'quic'", "camera[0].rtsp_transport", "one of tcp, udp"),
    (CAMERA + "decoder = 'cuvid'", "camera[0].decoder", "one of auto, ffmpeg, nvdec"),
    ("[[camera]]\nname = 'a'\nsource = 'none.mp4'", "camera[0].source", "an existing file or folder"),
    ("[[camera]]\nname = 'a'\nsource = 'gopher://x'", "camera[0].source", "one of the schemes rtsp"),
    ("[[camera]]\nname = 'a'\nsource = ''", "camera[0].source", "a webcam"),
    (CAMERA + "memory_policy = 'samurai'", "camera[0].memory_policy", "one of sam2, motion"),
    (CAMERA + "camera_motion = 1", "camera[0].camera_motion", "true or false"),
    (CAMERA + "refine = true", "camera[0].refine", "a table"),
    (CAMERA + "refine.fill_holes = 65537", "camera[0].refine.fill_holes", "from 0 to 65536"),
    (CAMERA + "refine.remove_specks = 0.5", "camera[0].refine.remove_specks", "from 0 to 65536"),
    (CAMERA + "refine.smooth = 1.5", "camera[0].refine.smooth", "a number from 0 (off) to 1"),
    (CAMERA + "refine.upsample = 'cubic'", "camera[0].refine.upsample", "one of bilinear, guided"),
    (CAMERA + "refine.fill_hole = 8", "camera[0].refine.fill_hole", "fill_holes (there is no key fill_hole)"),
    (CAMERA + "enhance.denoise = nan", "camera[0].enhance.denoise", "a number from 0 (off) to 1"),
    (CAMERA + "enhance.stabilise = true", "camera[0].enhance.stabilise", "one of the keys denoise, low_light"),
    (PROMPT + "refine.non_overlap = true", "camera[0].prompt[0].refine.non_overlap", "one of the keys fill_holes"),
    (PROMPT + "memory_policy = 1", "camera[0].prompt[0].memory_policy", "one of sam2, motion"),
    (PROMPT, "camera[0].prompt[0]", "a box, a mask, or at least one point"),
    (PROMPT + "points = [[1, 2, 0]]", "camera[0].prompt[0]", "at least one point with label 1"),
    (PROMPT + "points = [[1, 2, 2]]", "camera[0].prompt[0].points[0]", "a label of 1"),
    (PROMPT + "points = [[1]]", "camera[0].prompt[0].points[0]", "[x, y] or [x, y, label]"),
    (PROMPT + "points = [[-1, 2]]", "camera[0].prompt[0].points[0]", "a coordinate"),
    (PROMPT + "points = [[nan, 2]]", "camera[0].prompt[0].points[0]", "a coordinate"),
    (PROMPT + "points = []", "camera[0].prompt[0].points", "a list of"),
    (PROMPT + "box = [1, 2, 3]", "camera[0].prompt[0].box", "[x0, y0, x1, y1]"),
    (PROMPT + "box = [5, 2, 3, 4]", "camera[0].prompt[0].box", "x0 < x1"),
    (PROMPT + "mask = 'none.png'", "camera[0].prompt[0].mask", "an existing file"),
    (PROMPT + "mask = 'cup.png'\nbox = [1, 2, 3, 4]", "camera[0].prompt[0]", "either mask, or points and box"),
    (PROMPT + "box = [1, 2, 3, 4]\nlabel = \"a\\nb\"", "camera[0].prompt[0].label", "at most 64"),
    (CAMERA + "[[camera.prompt]]\nbox = [1, 2, 3, 4]", "camera[0].prompt[0].object_id", "required"),
    (PROMPT + "box = [1, 2, 3, 4]\n[[camera.prompt]]\nobject_id = 1\nbox = [1, 2, 3, 4]",
     "camera[0].prompt[1].object_id", "only once"),
    (CAMERA + "[[camera.prompt]]\nobject_id = -1\nbox = [1, 2, 3, 4]", "camera[0].prompt[0].object_id", "from 0 to"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "key", "expected"), WRONG)
def test_what_is_wrong_is_refused_by_name(folder: Path, text: str, key: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(folder, text)
    error = caught.value
    assert error.key == key
    assert expected in error.expected
    assert str(error).startswith(f"{folder / 'c.toml'}: {key} = ")
    assert "\n" not in str(error) and len(str(error)) < 600


def test_no_password_in_an_error(folder: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(folder, '[[camera]]\nname = "a"\nsource = "ftp://joe:p/a?s#s@w@host/x"')
    assert "ftp://***" in str(caught.value)
    assert not any(part in str(caught.value) for part in ("joe", "p/a", "s#s", "s@w"))


@pytest.mark.parametrize("content", [b"model = ", b"a = 1\na = 2", b"\xff\xfe"])
def test_a_file_that_is_no_toml_says_where(folder: Path, content: bytes) -> None:
    (folder / "c.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"c\.toml: .*: expected a TOML file"):
        load_config(folder / "c.toml")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: No such file or directory: expected a readable TOML file"):
        load_config(tmp_path / "none.toml")


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=5))
def test_no_value_of_any_type_breaks_the_checks(value: object) -> None:
    for key in ("model", "bind", "frames_fps", "loop", "max_fps", "name"):
        try:
            config_from_flags("0", PromptFlags(), options={key: value})
        except ConfigError as error:
            assert error.key.startswith("--")


def test_the_command_line_makes_the_same_values() -> None:
    flags = PromptFlags(points=["10,20", "3:5,6,1", "30,40,0"], boxes=["2:1,2,3,4"], labels=["2:cup"])
    options = {"model": "nano", "bind": ["ipc:///tmp/x"], "loop": True, "pace": None, "max_fps": 5.0}
    assert config_from_flags("testsrc://", flags, options=options) == Config(
        cameras=(
            CameraConfig(
                name="camera",
                source="testsrc://",
                loop=True,
                max_fps=5.0,
                prompts=(
                    PromptConfig(1, points=((10, 20, 1), (30, 40, 0))),
                    PromptConfig(3, points=((5, 6, 1),)),
                    PromptConfig(2, "cup", box=(1, 2, 3, 4)),
                ),
            ),
        ),
        bind=("ipc:///tmp/x",),
    )


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (PromptFlags(points=["abc"]), "command line: --point = 'abc': expected x,y or x,y,label"),
        (PromptFlags(points=["1,2,3"]), "command line: --point = .*: expected a label of 1"),
        (PromptFlags(points=["1,2,3,4"]), "command line: --point = '1,2,3,4': expected x,y or"),
        (PromptFlags(points=["1,nan"]), "command line: --point = nan: expected a coordinate"),
        (PromptFlags(boxes=["1,2,3"]), "command line: --box = '1,2,3': expected x0,y0,x1,y1"),
        (PromptFlags(boxes=["1,2,3,4", "1,2,3,5"]), "command line: --box = '1,2,3,5': expected one box for object 1"),
        (PromptFlags(masks=["none.png"]), "command line: --mask = 'none.png': expected an existing file"),
    ],
)
def test_a_wrong_option_is_named(flags: PromptFlags, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        config_from_flags("0", flags, options={})


def test_settings_of_masks_and_pictures_stand_on_the_command_line_too() -> None:
    memory = {"memory_policy": "motion", "camera_motion": True}
    options = {**memory, "fill_holes": 8, "upsample": "guided", "smooth": None, "low_light": 0.5}
    (camera,) = config_from_flags("testsrc://", PromptFlags(), options=options).cameras
    assert camera.memory_policy == "motion" and camera.camera_motion
    assert camera.refine == RefineOptions(fill_holes=8, upsample="guided")
    assert camera.enhance == EnhanceOptions(low_light=0.5)
    assert treatment_from_flags({**options, "model": "nano"}) == (camera.refine, camera.enhance)
    with pytest.raises(ConfigError, match="command line: --fill-holes = -1: expected a whole number from 0 to 65536"):
        treatment_from_flags({"fill_holes": -1})
    with pytest.raises(ConfigError, match="command line: --upsample = 'cubic': expected one of bilinear, guided"):
        config_from_flags("0", PromptFlags(), options={"upsample": "cubic"})


def test_a_prompt_s_own_settings_are_laid_over_the_camera_s(folder: Path) -> None:
    prompts = "".join(
        f"[[camera.prompt]]\nobject_id = {number}\npoints = [[1, 2]]\n{refine}\n"
        for number, refine in enumerate(("", "refine = {}", "refine = { smooth = 0.25 }"))
    )
    (camera,) = load(folder, CAMERA + prompts + "[camera.refine]\nfill_holes = 9\n").cameras
    of_camera = RefineOptions(fill_holes=9)
    own = RefineOptions(fill_holes=9, smooth=0.25)
    assert camera.refine == of_camera and [prompt.refine for prompt in camera.prompts] == [None, of_camera, own]


def test_a_wrong_source_is_named() -> None:
    with pytest.raises(ConfigError, match=r"command line: SOURCE = 'none\.mp4': expected an existing file or folder"):
        config_from_flags("none.mp4", PromptFlags(), options={})


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("0", "webcam0"),
        ("/dev/video2", "video2"),
        ("clips/a nice clip.mp4", "a_nice_clip"),
        ("rtsp://u:p@host:554/live/door?x=1", "door"),
        ("rtsp://host", "host"),
        ("testsrc://", "camera"),
        ("push://robot", "robot"),
    ],
)
def test_a_camera_without_a_name_gets_one(source: str, name: str) -> None:
    assert camera_name(source) == name
