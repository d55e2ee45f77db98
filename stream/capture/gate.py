"""Gate: lets packets go to the decoder only while every packet since a key frame is there.

Owns: whether the stream is whole. One per connection, used by the camera's thread.
Never: guesses at pixels: what a decoder makes of a picture whose reference is missing looks like a picture.

| counted as | what happened |
|---|---|
| before_key | packets before the connection's first key frame |
| corrupt | packets after a loss, until the next key frame |

Should no key frame come for ten seconds: a stream that never had one (intra refresh) is let through, one that had is
opened again, since a new connection begins with a key frame.
"""

from __future__ import annotations

from stream.capture.picture import SourceError

KEY_LIMIT_S = 10.0


class Gate:
    """Written by the camera's thread."""

    def __init__(self, now_ns: int) -> None:
        self._is_open = False
        self._had_key = False
        self._shut_ns = now_ns

    def shut(self, now_ns: int) -> None:
        """A packet was lost, or a picture came out damaged."""
        if self._is_open:
            self._is_open, self._shut_ns = False, now_ns

    def loss_of(self, *, is_key: bool, is_damaged: bool, now_ns: int) -> str:
        """Why the packet may not be decoded; "" = it may."""
        reason = "corrupt" if self._had_key else "before_key"
        if is_damaged:
            self.shut(now_ns)
            return reason
        if is_key:
            self._is_open = self._had_key = True
        elif not self._is_open and now_ns - self._shut_ns > KEY_LIMIT_S * 1e9:
            if self._had_key:
                raise SourceError(f"no key frame within {KEY_LIMIT_S:g} s after a loss")
            self._is_open = True
        return "" if self._is_open else reason
