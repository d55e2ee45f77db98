"""Motion: where an object's box will be next, and how the camera moved.

Owns nothing itself: this page only names what the package offers. Imports numpy and OpenCV, never torch.
"""

from stream.motion.camera import CameraMotion, View
from stream.motion.kalman import BoxFilter, Place

__all__ = ["BoxFilter", "CameraMotion", "Place", "View"]
