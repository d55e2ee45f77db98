"""SAM 2 as four programs: `Encode`, `Track`, `PromptPoints`, `PromptMask`.

Owns: the order of operations inside each program, over the modules and weights of the official `sam2` package. Modules
only; any thread.
Never: keeps state between calls, changes the given model, or knows a device, a thread or an object id.

Written to be exported: fixed shapes, real-valued rotary encoding on contiguous halves, no slice assignment, position
encodings as constants, LayerNorm2d through `F.layer_norm`. Each class names the official function that it replaces.
"""

from engines.graphs.attend import Attend, LookAround, pointer_position
from engines.graphs.decode import Decode
from engines.graphs.encode import Encode
from engines.graphs.flat import FlatEncode, FlatTrack, track_inputs
from engines.graphs.hiera import HieraBlock
from engines.graphs.kernel import SDPA, Kernel, Kernels, Sdpa
from engines.graphs.programs import PromptMask, PromptPoints, Track, empty_prompt, spec_of
from engines.graphs.remember import Remember

__all__ = [
    "SDPA",
    "Attend",
    "Decode",
    "Encode",
    "FlatEncode",
    "FlatTrack",
    "HieraBlock",
    "Kernel",
    "Kernels",
    "LookAround",
    "PromptMask",
    "PromptPoints",
    "Remember",
    "Sdpa",
    "Track",
    "empty_prompt",
    "pointer_position",
    "spec_of",
    "track_inputs",
]
