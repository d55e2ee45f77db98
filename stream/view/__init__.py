"""The live view: a camera's pictures with their masks, in a window, in a video file, or both; and a hand that corrects.

Owns: everything between the subscriber and the screen, one module a noun: `program` (the loop), `reel` and `pairs`
(what came), `window`, `canvas` (what is drawn), `gesture`, `editor`, `choice`, `asking` (what clicks and keys mean),
`messenger` (sends commands). Runs in the main thread: windows want it; the messenger has a thread of its own. Never:
shows a mask on another picture than its own, or holds the daemon up.
"""

from stream.view.pairs import NUM_HELD, Joiner, Rate
from stream.view.program import ViewError, ViewOptions, run_view

__all__ = ["NUM_HELD", "Joiner", "Rate", "ViewError", "ViewOptions", "run_view"]
