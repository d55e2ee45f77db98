"""Engines by name, and TensorRT's programs on the way there: built, compared with eager, kept.

Owns nothing itself: this page only names what the package offers. `opening` makes an engine, `workshop` builds what it
lacks in a child process (`child`, `making`), `gate` compares with the reference on a `rollout`, `cache` keeps files
under names from a `recipe`.
"""

from engines.build.cache import MAX_BYTES, CacheError, EngineCache, Entry, Label, PlanUnusable
from engines.build.gate import LIMITS, Gate, Limit
from engines.build.opening import open_engine, open_plans
from engines.build.request import BACKENDS, PLAN_BACKENDS, EngineRequest, Precision
from engines.build.shelf import Shelf, is_suspect, with_backend
from engines.build.tidings import Order
from engines.build.verdict import Verdict
from engines.build.workshop import Progress, ReadyPlan, Workshop

__all__ = [
    "BACKENDS",
    "LIMITS",
    "MAX_BYTES",
    "PLAN_BACKENDS",
    "CacheError",
    "EngineCache",
    "EngineRequest",
    "Entry",
    "Gate",
    "Label",
    "Limit",
    "Order",
    "PlanUnusable",
    "Precision",
    "Progress",
    "ReadyPlan",
    "Shelf",
    "Verdict",
    "Workshop",
    "is_suspect",
    "open_engine",
    "open_plans",
    "with_backend",
]
