"""Screening a data set: scores for every row, what is flagged, and how far it would push a model; see screen.py."""

from demeanor.data.columns import Columns
from demeanor.screening.results import Screening
from demeanor.screening.screen import LocalEngine, Options, screen

__all__ = ["Columns", "LocalEngine", "Options", "Screening", "screen"]
