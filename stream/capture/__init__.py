"""Pictures from cameras, files and other programs, each into its camera's ring.

Owns: what the daemon sees of a camera (`feeder`), its thread (`thread`) and its numbers (`numbering`), what a source is
(`picture`) and how it is written (`address`), and one module a kind: `files`, `images`, `streams` (RTSP, HTTP, HLS),
`webcam`, `testsrc`, `push`. Nobody else in the daemon knows FFmpeg.
Never: touches a tensor, a mask or a subscriber.
"""

# OpenCV before PyAV: its windows hang for ever once PyAV's own copy of libxcb is loaded (PyAV issue 978).
import cv2  # noqa: F401

from stream.capture.backoff import BackOff
from stream.capture.feeder import CameraFeeder, CameraStuck
from stream.capture.numbering import Numbering
from stream.capture.picture import Arrival, Loss, Picture, Source, SourceError
from stream.capture.sources import check_source, open_source
from stream.capture.thread import CaptureThread
from stream.capture.watch import Watch

__all__ = [
    "Arrival",
    "BackOff",
    "CameraFeeder",
    "CameraStuck",
    "CaptureThread",
    "Loss",
    "Numbering",
    "Picture",
    "Source",
    "SourceError",
    "Watch",
    "check_source",
    "open_source",
]
