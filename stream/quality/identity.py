"""Whether a prediction stays on its object: identity switches, and pictures until it is back after an absence.

Owns: what is remembered of one object. Thread: the one that made it. Never: sees a mask.

A prediction is on an object where their IoU is at least 0.5. A SWITCH is counted when it comes to be on an object other
than its own and was not on that one last; coming home is none. Where it is on no object, nothing changes.

An object RETURNS at the first picture that shows it after one or more that did not. It is re-acquired so many pictures
of the video later as pass until the prediction is on it: 0 at once, None if not before it is gone again, or the end.
"""

from __future__ import annotations

from collections.abc import Mapping

ON = 0.5


class Identity:
    """Of one object. Written by the thread that made it: `num_switches`, `returns` and where it was last."""

    __slots__ = ("_holder", "_is_gone", "_object_id", "_since", "num_switches", "returns")

    def __init__(self, object_id: int) -> None:
        self._object_id = self._holder = object_id
        self._is_gone = False
        self._since: int | None = None
        self.num_switches = 0
        self.returns: list[int | None] = []

    def put(self, index: int, own: float, others: Mapping[int, float], *, is_visible: bool) -> None:
        """IoU with its own object and with the others that are visible, on picture `index`."""
        self._put_holder(own if is_visible else 0.0, others)
        if not is_visible:
            self._end_return()
            self._is_gone = True
            return
        if self._is_gone:
            self._is_gone, self._since = False, index
        if self._since is not None and own >= ON:
            self.returns.append(index - self._since)
            self._since = None

    def finish(self) -> None:
        """There are no more pictures."""
        self._end_return()

    def _put_holder(self, own: float, others: Mapping[int, float]) -> None:
        if own >= ON:
            self._holder = self._object_id
            return
        other = max(others, key=lambda object_id: others[object_id], default=None)
        if other is None or others[other] < ON or other == self._holder:
            return
        self._holder = other
        self.num_switches += 1

    def _end_return(self) -> None:
        if self._since is not None:
            self.returns.append(None)
            self._since = None
