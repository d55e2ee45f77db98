"""How good masks are: J, F and J&F of DAVIS, precision and recall, mAP of COCO, steadiness and identities.

Owns nothing itself: this page only names what the package offers. Imports numpy and OpenCV, never torch.
"""

from stream.quality.pairing import Match, Scoring
from stream.quality.score import ObjectScore, SequenceScore
from stream.quality.scorer import Scene, SequenceScorer
from stream.quality.scoring import score_sequence
from stream.quality.statistics import Statistics
from stream.quality.summary import Precision, Summary, summarise

__all__ = [
    "Match",
    "ObjectScore",
    "Precision",
    "Scene",
    "Scoring",
    "SequenceScore",
    "SequenceScorer",
    "Statistics",
    "Summary",
    "score_sequence",
    "summarise",
]
