"""The command `subscribe`: what a daemon publishes, as lines for people or as JSON, and into a `.masks` file.

Owns: how messages are printed. Thread: the main thread of the command. Never: decodes a mask, or skips a message.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import msgspec

from stream.client import (
    ClientKeys,
    Counts,
    FrameMessage,
    Info,
    MasksMessage,
    Message,
    Received,
    StateMessage,
    Subscriber,
    SubscriberOptions,
)
from stream.recording import Record, RecordingWriter

LIVE_MS = 60_000.0  # older masks come from a replay


@dataclass(frozen=True, slots=True)
class SubscribeRequest:
    """What the command line asked for. `count` is the number of masks messages after which to end."""

    endpoint: str
    cameras: tuple[str, ...] | None = None
    count: int | None = None
    as_json: bool = False
    save: Path | None = None
    timeout_s: float | None = 10.0
    frames: bool = False  # also the pictures: not printed, but saved
    keys: ClientKeys | None = None


def run_subscribe(request: SubscribeRequest, out: TextIO | None = None) -> None:
    """Print and record until `count` masks messages came. Raises TimeoutError, WireError, OSError."""
    out = out or sys.stdout
    options = SubscriberOptions(
        newest_only=False, frames=request.frames, timeout_s=request.timeout_s, keys=request.keys
    )
    with (
        Subscriber(request.endpoint, request.cameras, **options) as subscriber,
        RecordingWriter(request.save) if request.save else nullcontext() as recording,
    ):
        for received in received_until(subscriber, request.count):
            message = received.message
            if recording is not None:
                recording.put(Record(received.received_ns, received.received_utc_ns, received.payload))
            if not isinstance(message, FrameMessage):
                counts = subscriber.counts(getattr(message, "camera", ""))
                print(json_line(message) if request.as_json else text_line(message, counts), file=out, flush=True)


def received_until(subscriber: Subscriber, count: int | None) -> Iterator[Received]:
    """All messages up to and with the masks message number `count`."""
    num_masks = 0
    while count is None or num_masks < count:
        received = subscriber.receive()
        num_masks += isinstance(received.message, MasksMessage)
        yield received


def json_line(message: Message) -> str:
    """Every field under its name on the wire, and the topic; mask data is base64."""
    fields = {"topic": message.topic, **msgspec.to_builtins(message)}
    return msgspec.json.encode(fields).decode()


def text_line(message: Message, counts: Counts) -> str:
    if isinstance(message, MasksMessage):
        objects = ", ".join(
            f"{item.id}{':' if item.label else ''}{item.label} {item.state}" for item in message.objects
        )
        lost = f"  lost {counts.num_lost}" if counts.num_lost else ""
        age_ms = message.age_ms()
        age = f"{age_ms:.1f} ms" if age_ms < LIVE_MS else "recorded"
        picture = f"{message.camera}  {message.epoch}/{message.seq}  {age}"
        return f"{picture}{lost}  {objects or 'no objects'}"
    if isinstance(message, StateMessage):
        return f"{message.camera}  {message.condition}: {message.reason}"
    if isinstance(message, Info):
        cameras = ", ".join(f"{camera.name} {camera.width}x{camera.height}" for camera in message.cameras)
        backend = message.backend or "no back end yet"
        return f"sam2-stream {message.software}, {message.model} on {backend}; cameras: {cameras or 'none'}"
    return message.topic
