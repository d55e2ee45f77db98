"""Recorded videos as pictures: files that FFmpeg reads, folders of pictures, and patterns of their names.

Owns: what `open_footage` takes and gives; `video` and `folder` are the two kinds, `order` says which pictures a folder
holds. Whoever opened a video reads it, in one thread at a time.
Never: holds more than a few pictures, however long the video, or touches a mask.
"""

# OpenCV before PyAV: its windows hang for ever once PyAV's own copy of libxcb is loaded (PyAV issue 978).
import cv2  # noqa: F401

from stream.footage.folder import PictureFolder
from stream.footage.opening import open_footage
from stream.footage.order import IMAGE_SUFFIXES, list_pictures, natural_order
from stream.footage.video import VideoFile

__all__ = ["IMAGE_SUFFIXES", "PictureFolder", "VideoFile", "list_pictures", "natural_order", "open_footage"]
