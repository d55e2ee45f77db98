"""Masks of recorded videos: readers and writers of every format that evaluation, `segment` and `finetune` know.

Owns nothing itself: this page only names what the package offers. Imports no torch and no OpenCV.
"""

from stream.masksets.folders import place_like
from stream.masksets.indexed import read_indexed, write_indexed
from stream.masksets.lines import LineSequence, RleLine, RleObject
from stream.masksets.opening import footage_of, open_masks
from stream.masksets.rle import Rle, bits_of, rle_of
from stream.masksets.tracked import confidence, labelled, line_of
from stream.masksets.writers import DavisWriter, ObjectWriter, RleWriter

__all__ = [
    "DavisWriter",
    "LineSequence",
    "ObjectWriter",
    "Rle",
    "RleLine",
    "RleObject",
    "RleWriter",
    "bits_of",
    "confidence",
    "footage_of",
    "labelled",
    "line_of",
    "open_masks",
    "place_like",
    "read_indexed",
    "rle_of",
    "write_indexed",
]
