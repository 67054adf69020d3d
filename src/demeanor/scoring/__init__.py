"""Scoring: conversations to readings, whole or as they grow; the seam to a model (reads), what is made of raw scores (gauge)."""

from demeanor.measure.calibration import Calibration, Score
from demeanor.scoring.live import ConversationScorer
from demeanor.scoring.reading import NotScored, Reading, TokenScores, to_frame
from demeanor.scoring.scorer import Scorer, open_scorer

__all__ = ["Calibration", "ConversationScorer", "NotScored", "Reading", "Score", "Scorer", "TokenScores", "open_scorer", "to_frame"]
