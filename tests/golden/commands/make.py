"""Writes the golden requests and replies beside it. A changed file needs a new stream.command.VERSION."""

from __future__ import annotations

import pathlib

import numpy as np

from stream import command
from stream.command_codec import encode_reply, encode_request
from stream.status import CameraStatus, ObjectStatus, Status

HERE = pathlib.Path(__file__).parent
SEEN = command.Seen(epoch=2, seq=1234, width=61, height=40, run=1_789_999_999_000_000_001)
CUP = ObjectStatus(id=7, label="cup", state="tracked", score=6.25, last_seen_s=0.0)
CAMERA = CameraStatus(
    name="cam1", source="rtsp://***@10.0.0.7/1", condition="online", reason="pictures arrive", since_s=12.5, epoch=2,
    seq=1234, width=61, height=40, codec="h264 (High)", decoder="ffmpeg", clock_source="arrival", fps_in=30.0,
    fps_out=29.5, last_frame_age_s=0.03125, num_decoded=1235, num_published=1200, num_reconnects=1, num_abandoned=0,
    num_dropped={"newer": 34}, objects=(CUP,),
)  # fmt: skip


def requests() -> dict[str, command.Request]:
    mask_hw = np.zeros((40, 61), bool)
    mask_hw[5:25, 11:45] = True
    marks = {"points": ((20.5, 10.0, 1), (50.0, 10.0, 0)), "box": (11.0, 5.0, 45.0, 25.0), "seen": SEEN}
    return {
        "add_points": command.Add(id="a-1", camera="cam1", label="cup", **marks),
        "add_mask": command.Add(id="a-2", camera="cam1", object_id=7, mask=command.SentMask.of(mask_hw)),
        "refine": command.Refine(id="a-3", camera="cam1", object_id=7, points=((50.0, 10.0, 0),), seen=SEEN),
        "remove": command.Remove(id="a-4", camera="cam1", object_id=7),
        "rename": command.Rename(id="a-5", camera="cam1", object_id=7, new_id=8, label="Tasse é"),
        "reset": command.Reset(id="a-6", camera="cam1"),
        "undo": command.Undo(id="a-7", camera="cam1"),
        "add_camera": command.CameraAdd(
            id="a-8", camera="cam2", source="rtsp://user:password@10.0.0.8/1", rtsp_transport="udp", max_fps=12.5
        ),
        "remove_camera": command.CameraRemove(id="a-9", camera="cam2"),
        "pause_camera": command.CameraPause(id="a-10", camera="cam2"),
        "resume_camera": command.CameraResume(id="a-11", camera="cam2"),
        "status": command.GetStatus(id="a-12"),
        "ping": command.Ping(id="a-13"),
    }


def replies() -> dict[str, command.Reply]:
    return {
        "reply_done": command.Reply(id="a-1", run=SEEN.run, object_id=7, seen=SEEN, note="the newest picture"),
        "reply_refused": command.Reply(id="a-2", run=SEEN.run, ok=False, code="unknown", error="camera cam9"),
        "reply_status": command.Reply(
            id="a-12", run=SEEN.run, status=Status(software="0.2", run=SEEN.run, is_live=True, cameras=(CAMERA,))
        ),
    }


if __name__ == "__main__":
    for name, request in requests().items():
        (HERE / f"{name}.bin").write_bytes(encode_request(request))
    for name, reply in replies().items():
        (HERE / f"{name}.bin").write_bytes(encode_reply(reply))
