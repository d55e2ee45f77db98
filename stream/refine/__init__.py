"""What is done to masks between the model and whoever receives them: holes, specks, jitter, coarse edges, overlaps.

Owns nothing itself: this page only names what the package offers. The worker's thread. Never: touches what enters an
object's memory.

Order: `steady` (jitter of the logits in time), `regions` (holes and specks), `overlap` (a pixel belongs to one object),
all on the model's small logits, on the device; then `guided` (edges drawn to those of the picture) while they are
enlarged. Every step is off unless asked for, and then costs nothing.
"""

from stream.refine.finish import Finish, FinishState
from stream.refine.guided import GuidedEdges
from stream.refine.refinement import Refinement

__all__ = ["Finish", "FinishState", "GuidedEdges", "Refinement"]
