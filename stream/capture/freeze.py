"""FreezeWatch: notices that a camera sends the same picture again and again.

Owns: a sample of the last picture, every 16th row of it, and since when it has been the same. Used by one camera's
thread; 0.1 ms for 1920x1080.
Never: drops a picture.

A camera that hangs inside sends its last picture for ever, and a new connection often wakes it up: so the source is
opened again, once. A scene in which nothing moves looks the same after a strong codec; there the new connection shows
the same picture, which is delivered as before. The camera stays `frozen` until the picture changes, and is not opened
again for this reason for ten minutes.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

ROW_STEP = 16
MAX_RECODED = 12  # grey levels by which two encodings of one picture may differ
REOPEN_NS = 600 * 10**9


class FreezeWatch:
    """Written by the camera's thread. `is_frozen`: pictures come, all of them the same for `freeze_s`."""

    def __init__(self, freeze_s: float) -> None:
        self.freeze_s = freeze_s
        self.is_frozen = False
        self._size = (0, 0)
        self._sample = b""
        self._since_ns = 0
        self._reopened_ns: int | None = None

    def must_reopen(self, image_hwc: NDArray[np.uint8], now_ns: int) -> bool:
        """Look at a picture; True once, when the source is to be opened again."""
        if not self.freeze_s:
            return False
        rows_hwc = image_hwc[ROW_STEP // 2 :: ROW_STEP]
        sample, size = rows_hwc.tobytes(), image_hwc.shape[:2]
        if size != self._size or not self._is_same(sample):
            self._size, self._sample, self._since_ns, self.is_frozen = size, sample, now_ns, False
            return False
        if self.is_frozen or now_ns - self._since_ns < self.freeze_s * 1e9:
            return False
        self.is_frozen = True
        if self._reopened_ns is not None and now_ns - self._reopened_ns < REOPEN_NS:
            return False
        self._reopened_ns = now_ns
        return True

    def _is_same(self, sample: bytes) -> bool:
        """To the last bit; once frozen, as far as another encoding of the same picture may tell."""
        if sample == self._sample or not self.is_frozen:
            return sample == self._sample
        found, before = (np.frombuffer(data, np.uint8) for data in (sample, self._sample))
        return bool(cv2.norm(found, before, cv2.NORM_INF) <= MAX_RECODED)
