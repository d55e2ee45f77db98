"""A TOML file made into a `Config`.

Owns: which keys a file may hold and the check of each. Runs in whichever thread calls it, at start.
Never: opens a camera or lets an unknown key pass. Paths in the file are relative to the file.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stream.config.checks import (
    BEYOND_NEEDS_KEYS,
    Check,
    Place,
    choice,
    endpoint,
    existing_file,
    flag,
    folder,
    http_address,
    integer,
    is_local,
    list_of,
    number,
    source,
    table,
    text,
)
from stream.config.treatment import MEMORY_POLICIES, REFERENCE_SIZE, EnhanceOptions, RefineOptions
from stream.config.values import BACKENDS, MAX_OBJECT_ID, MODELS, CameraConfig, Config, ConfigError, PromptConfig

coordinate = number("a coordinate in pixels from 0 to 100000", 0, 100_000)


def load_config(path: Path | str) -> Config:
    """Read and check a configuration file; raises `ConfigError`."""
    path = Path(path)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        reason = error.strerror or "unreadable"
        raise ConfigError(str(path), "", value=reason, expected="a readable TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), "", value=str(error), expected="a TOML file") from error
    return parse_config(content, Place(str(path), path.parent))


def parse_config(content: dict[str, Any], place: Place) -> Config:
    """Check what a file, or a command line put in a file's shape, holds."""
    values = table(content, place, _TOP)
    cameras: tuple[CameraConfig, ...] = values.pop("camera", ())
    _once(place.at("camera"), "name", [camera.name for camera in cameras])
    config = Config(cameras=cameras, **values)
    _check_keys(config, place)
    return config


def _check_keys(config: Config, place: Place) -> None:
    """Only with keys may other machines reach a socket."""
    for key, endpoints in (("bind", config.bind), ("control", config.control or ())):
        for index, value in enumerate(endpoints):
            if config.keys is None and not is_local(value):
                place.at(key).at(index).refuse(value, BEYOND_NEEDS_KEYS)


def _point(value: object, place: Place) -> tuple[float, float, int]:
    if not isinstance(value, list | tuple) or len(value) not in (2, 3):
        place.refuse(value, "[x, y] or [x, y, label] in pixels, label 1 = on the object, 0 = not on it")
    label = value[2] if len(value) == 3 else 1
    if label not in (0, 1) or isinstance(label, bool):
        place.refuse(value, "a label of 1 (on the object) or 0 (not on it)")
    return coordinate(value[0], place), coordinate(value[1], place), int(label)


def _box(value: object, place: Place) -> tuple[float, ...]:
    box: tuple[float, ...] = list_of(coordinate, "[x0, y0, x1, y1] in pixels", low=4, high=4)(value, place)
    if box[0] >= box[2] or box[1] >= box[3]:
        place.refuse(value, "[x0, y0, x1, y1] with x0 < x1 and y0 < y1")
    return box


def _prompt(value: object, place: Place) -> PromptConfig:
    prompt = PromptConfig(**table(value, place, _PROMPT, required=["object_id"]))
    if prompt.mask is not None and (prompt.points or prompt.box is not None):
        place.refuse(value, "either mask, or points and box")
    if prompt.mask is None and prompt.box is None and not any(label for _, _, label in prompt.points):
        place.refuse(value, "a box, a mask, or at least one point with label 1")
    return prompt


def _camera(value: object, place: Place) -> CameraConfig:
    values = table(value, place, _CAMERA, required=["name", "source"])
    prompts: tuple[PromptConfig, ...] = values.pop("prompt", ())
    _once(place.at("prompt"), "object_id", [prompt.object_id for prompt in prompts])
    camera = CameraConfig(**values)
    given = value["prompt"] if isinstance(value, dict) and prompts else []
    whole = [_completed(prompt, raw, camera.refine) for prompt, raw in zip(prompts, given, strict=True)]
    return dataclasses.replace(camera, prompts=tuple(whole))


def _completed(prompt: PromptConfig, given: dict[str, Any], of_camera: RefineOptions) -> PromptConfig:
    """With the camera's settings where the prompt has none of its own."""
    if prompt.refine is None:
        return prompt
    own = {key: getattr(prompt.refine, key) for key in given["refine"]}
    return dataclasses.replace(prompt, refine=dataclasses.replace(of_camera, **own))


def refine_options(value: object, place: Place) -> RefineOptions:
    return RefineOptions(**table(value, place, REFINE))


def enhance_options(value: object, place: Place) -> EnhanceOptions:
    return EnhanceOptions(**table(value, place, ENHANCE))


def _refine_of_prompt(value: object, place: Place) -> RefineOptions:
    return RefineOptions(**table(value, place, {key: REFINE[key] for key in REFINE if key != "non_overlap"}))


def _once(place: Place, key: str, values: Sequence[object]) -> None:
    for index, value in enumerate(values):
        if value in values[:index]:
            place.at(index).at(key).refuse(value, f"a {key} that stands only once")


_share = number("a number from 0 (off) to 1", 0, 1)
REFINE: dict[str, Check] = {
    "fill_holes": integer(0, REFERENCE_SIZE**2),
    "remove_specks": integer(0, REFERENCE_SIZE**2),
    "smooth": _share,
    "upsample": choice("bilinear", "guided"),
    "non_overlap": flag,
}
ENHANCE: dict[str, Check] = {"denoise": _share, "low_light": _share}
_PROMPT: dict[str, Check] = {
    "object_id": integer(0, MAX_OBJECT_ID),
    "label": text("a text of at most 64 characters", r"[^\x00-\x1f]{0,64}"),
    "points": list_of(_point, "a list of [x, y, label]", low=1, high=64),
    "box": _box,
    "mask": existing_file,
    "refine": _refine_of_prompt,
    "memory_policy": choice(*MEMORY_POLICIES),
}
_CAMERA: dict[str, Check] = {
    "name": text("1 to 64 of the characters A-Z a-z 0-9 _ . -", r"[A-Za-z0-9_.-]{1,64}"),
    "source": source,
    "pace": choice("live", "offline"),
    "loop": flag,
    "frame_id": text("a name of at most 128 characters without blanks", r"\S{1,128}"),
    "max_fps": number("frames a second from 0.01 to 1000", 0.01, 1000),
    "rtsp_transport": choice("tcp", "udp"),
    "decoder": choice("auto", "ffmpeg", "nvdec"),
    "credential": text("the name of a credential: 1 to 64 of A-Z a-z 0-9 _ . -", r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}"),
    "clock": choice("arrival", "sender"),
    "stall_s": number("seconds from 0.5 to 3600", 0.5, 3600),
    "freeze_s": number("seconds from 0 (never) to 86400", 0, 86_400),
    "memory_gap_s": number("seconds from 0 to 86400", 0, 86_400),
    "memory_policy": choice(*MEMORY_POLICIES),
    "camera_motion": flag,
    "refine": refine_options,
    "enhance": enhance_options,
    "prompt": list_of(_prompt, "[[camera.prompt]] tables"),
}
_TOP: dict[str, Check] = {
    "camera": list_of(_camera, "[[camera]] tables"),
    "model": choice(*MODELS),
    "checkpoint": existing_file,
    "device": text("auto, cpu, cuda or cuda:N", r"auto|cpu|cuda(:\d{1,2})?"),
    "dtype": choice("auto", "fp32", "bf16", "fp16"),
    "backend": choice(*BACKENDS),
    "max_cond_frames": integer(1, 7),
    "bind": list_of(endpoint, "a list of 1 to 8 endpoints", low=1, high=8),
    "control": list_of(endpoint, "a list of at most 8 endpoints", high=8),
    "http": http_address,
    "keys": folder,
    "state": folder,
    "allow_cpu": flag,
    "wire_schemes": list_of(choice("rtsp", "rtsps", "http", "https"), "a list of rtsp, rtsps, http, https", high=4),
    "max_cameras": integer(1, 1024),
    "max_objects": integer(1, 1024),
    "refine_as_cond": flag,
    "mask_encoding": choice("bits", "coco_rle", "none"),
    "frames_fps": number("frames a second from 0.1 to 120", 0.1, 120),
    "jpeg_quality": integer(1, 100),
}
