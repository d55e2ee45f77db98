"""Generated clips with known truth, for the demo, verification, training and tests.

Owns nothing itself: this page only names what the package offers. Imports numpy and OpenCV, never torch.
"""

from engines.synthetic.clip import (
    DEMO,
    EVALUATION_SEEDS,
    TRAINING_SEEDS,
    VALIDATION_SEEDS,
    ClipSpec,
    SyntheticClip,
    deepest_point,
)
from engines.synthetic.counter import draw_counter, read_counter, strip_height

__all__ = [
    "DEMO",
    "EVALUATION_SEEDS",
    "TRAINING_SEEDS",
    "VALIDATION_SEEDS",
    "ClipSpec",
    "SyntheticClip",
    "deepest_point",
    "draw_counter",
    "read_counter",
    "strip_height",
]
