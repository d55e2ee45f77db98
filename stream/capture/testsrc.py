"""TestSource: `testsrc://`, a generated clip whose pictures carry their number, burnt in along the top.

Owns: nothing but the clip. Runs in the camera's thread.
Never: leaves out a number: whoever reads the counter back sees every loss.

| option | default | |
|---|---|---|
| width, height | 640, 480 | pixels |
| fps | 30 | rate of pace=live and of the time stamps |
| frames | 0 | how many pictures; 0 = without end |
| objects | 2 | moving shapes |
| seed | 0 | another seed is another clip |

`testsrc://demo` is the clip of `sam2-stream demo`, once from its first to its last picture; of the options, only `fps`
applies.
"""

from __future__ import annotations

from engines.synthetic import DEMO, ClipSpec, SyntheticClip, draw_counter
from stream.capture.address import Address
from stream.capture.pacer import Pacer
from stream.capture.picture import Arrival, Items, Picture, SourceError
from stream.capture.watch import Watch
from stream.config import CameraConfig

OPTIONS = ("width", "height", "fps", "frames", "objects", "seed")


class TestSource:
    """Written by nobody after construction."""

    __test__ = False  # not for pytest
    retries = False
    can_freeze = False
    codec = decoder = ""

    def __init__(self, address: Address, config: CameraConfig) -> None:
        name = address.target.strip("/")
        if name not in ("", "demo"):
            expected = "testsrc://?option=value&... or testsrc://demo, not a name"
            raise SourceError(f"source '{address.shown}': expected {expected}")
        address.only(*(("fps",) if name else OPTIONS))
        self._num_frames = DEMO.num_frames if name else address.integer("frames", 0, low=0, high=10**9)
        self._period_ns = round(1e9 / address.number("fps", 30, low=0.01, high=1000))
        self._spec = DEMO if name else self._read_spec(address)
        self._is_live = config.pace == "live"

    def _read_spec(self, address: Address) -> ClipSpec:
        return ClipSpec(
            seed=address.integer("seed", 0, low=0, high=2**62),
            num_frames=max(self._num_frames, 1),
            height=address.integer("height", 480, low=64, high=4320),
            width=address.integer("width", 640, low=64, high=7680),
            num_objects=address.integer("objects", 2, low=0, high=8),
        )

    def check(self) -> None:
        """Nothing can be wrong that the constructor let pass."""

    def pictures(self, watch: Watch) -> Items:
        clip, pacer, index = SyntheticClip(self._spec), Pacer(watch), 0
        while not self._num_frames or index < self._num_frames:
            image_hwc = clip.frame(index)
            draw_counter(image_hwc, index)
            pts_ns = index * self._period_ns
            if watch.is_set() or (self._is_live and not pacer.wait(pts_ns)):
                return
            yield Picture.of_array(image_hwc, arrival=Arrival.now(), pts_ns=pts_ns)
            index += 1
