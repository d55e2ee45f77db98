"""`Upload`: camera pictures to the model's input, on the device.

Owns: resize, BGR to RGB, normalisation (`picture`, or in one kernel `fused` and `kernel`), and the memory that pictures
travel in (`upload`). Called by the worker's thread. Never: keeps a picture after it returned, so that its ring slot may
be released.
"""

from stream.prepare.picture import check_picture, prepare_frames
from stream.prepare.upload import Upload

__all__ = ["Upload", "check_picture", "prepare_frames"]
