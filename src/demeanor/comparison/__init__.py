"""A/B comparison of chatbot versions: scored replies to the same prompts, and what can be said of their differences."""

from demeanor.comparison.compare import compare
from demeanor.comparison.gate import Condition, Judged, judge, parse_condition
from demeanor.comparison.replies import Reply, matched, read_replies
from demeanor.comparison.results import Change, Comparison, Difference, Length, Pair, Scored, Share, Tally
from demeanor.comparison.versions import answer, bundled_prompts, read_prompts, safe_poles, score_versions

__all__ = [
    "Change",
    "Comparison",
    "Condition",
    "Difference",
    "Judged",
    "Length",
    "Pair",
    "Reply",
    "Scored",
    "Share",
    "Tally",
    "answer",
    "bundled_prompts",
    "compare",
    "judge",
    "matched",
    "parse_condition",
    "read_prompts",
    "read_replies",
    "safe_poles",
    "score_versions",
]
