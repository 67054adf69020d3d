"""A/B comparison of chatbot versions: scored replies to the same prompts, and what can be said of their differences."""

from demeanor.comparison.compare import compare
from demeanor.comparison.gate import GateCondition, Judged, judge, parse_condition
from demeanor.comparison.matching import matched
from demeanor.comparison.results import Change, Comparison, Difference, Length, Pair, Scored, UnsafeShare, VersionTally
from demeanor.comparison.versions import answer, safe_poles, score_versions

__all__ = [
    "Change",
    "Comparison",
    "Difference",
    "GateCondition",
    "Judged",
    "Length",
    "Pair",
    "Scored",
    "UnsafeShare",
    "VersionTally",
    "answer",
    "compare",
    "judge",
    "matched",
    "parse_condition",
    "safe_poles",
    "score_versions",
]
