"""Scoring: calibration, readings, the Scorer, and the measures of how well scores discriminate."""

from demeanor.measure.calibration import Calibration, Score
from demeanor.scoring.live import ConversationScorer
from demeanor.scoring.reading import NotScored, Reading, TokenScores, to_frame
from demeanor.scoring.scorer import Scorer

__all__ = ["Calibration", "ConversationScorer", "NotScored", "Reading", "Score", "Scorer", "TokenScores", "to_frame"]
