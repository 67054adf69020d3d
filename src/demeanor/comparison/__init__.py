"""A/B comparison of chatbot versions: scored replies to the same prompts, and what can be said of their differences."""

from demeanor.comparison.compare import compare
from demeanor.comparison.gate import Condition, Judged, judge, parse_condition
from demeanor.comparison.matching import matched
from demeanor.comparison.results import Change, Comparison, Difference, Length, Pair, Scored, Share, Tally
from demeanor.comparison.versions import answer, safe_poles, score_versions

__all__ = [
    "Change",
    "Comparison",
    "Condition",
    "Difference",
    "Judged",
    "Length",
    "Pair",
    "Scored",
    "Share",
    "Tally",
    "answer",
    "compare",
    "judge",
    "matched",
    "parse_condition",
    "safe_poles",
    "score_versions",
]
