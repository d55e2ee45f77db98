"""How good masks are, and how good the tracker is: against true masks, with a table, JSON and a report.

Owns nothing itself: this page only names what the package offers. `report` and `plots` need matplotlib and are imported
by name.
"""

from stream.evaluate.campaign import Campaign, evaluate_tracker, scores_of
from stream.evaluate.material import Material, clip_material, find_material, generated_material
from stream.evaluate.opening import Choice
from stream.evaluate.outcome import Outcome, ReportError, check_report
from stream.evaluate.pairing import Exhibit, exhibit_of, pair, score_all
from stream.evaluate.program import Order, Wish, compare, follow
from stream.evaluate.progress import Progress
from stream.evaluate.protocol import PROMPT_KINDS, PromptKind
from stream.evaluate.shelf import Record, Settings, Shelf, ShelfError
from stream.evaluate.speed import Pace, Speed, hardware_of, speed_of

__all__ = [
    "PROMPT_KINDS",
    "Campaign",
    "Choice",
    "Exhibit",
    "Material",
    "Order",
    "Outcome",
    "Pace",
    "Progress",
    "PromptKind",
    "Record",
    "ReportError",
    "Settings",
    "Shelf",
    "ShelfError",
    "Speed",
    "Wish",
    "check_report",
    "clip_material",
    "compare",
    "evaluate_tracker",
    "exhibit_of",
    "find_material",
    "follow",
    "generated_material",
    "hardware_of",
    "pair",
    "score_all",
    "scores_of",
    "speed_of",
]
