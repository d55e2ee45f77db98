"""Fine-tuning on the user's own videos: Meta's training model and losses, this project's data and loop.

Owns nothing itself: this page only names what the package offers.
"""

from stream.finetune.course import Course, Progress, Report
from stream.finetune.estimate import Estimate, estimate
from stream.finetune.material import Division, divide, find_clips
from stream.finetune.network import original_weights
from stream.finetune.settings import AUGMENTATIONS, FinetuneError, Settings, default_settings, read_augmentations
from stream.finetune.validation import Verdict

__all__ = [
    "AUGMENTATIONS",
    "Course",
    "Division",
    "Estimate",
    "FinetuneError",
    "Progress",
    "Report",
    "Settings",
    "Verdict",
    "default_settings",
    "divide",
    "estimate",
    "find_clips",
    "original_weights",
    "read_augmentations",
]
