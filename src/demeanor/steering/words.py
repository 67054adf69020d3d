"""A second opinion that knows nothing of activations: a bag of words and pairs of words, trained on a trait's pack."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from demeanor.errors import SteeringError
from demeanor.extraction.directions import spread
from demeanor.measure.metrics import Array
from demeanor.traits.definition import TraitDefinition
from demeanor.traits.words import bag_of_words


class WordReader:
    """Scores texts on a trait by their words (TF-IDF, logistic regression), in units of the spread within a pole."""

    def __init__(self, trait: TraitDefinition) -> None:
        train, held = trait.examples("train"), trait.examples("calibration") or trait.examples("train")
        texts = [e.conversation.messages[-1].content for e in train]
        self._model = bag_of_words(phrases=True)
        try:
            self._model.fit(texts, [e.high for e in train])
        except ValueError as error:
            raise SteeringError(f"{trait.name}: its examples share no words, so words cannot tell them apart; add examples") from error
        raw = self._model.decision_function([e.conversation.messages[-1].content for e in held])
        high = np.array([e.high for e in held])
        self._spread = max(spread(raw[high], raw[~high]), 1e-12)

    def score(self, texts: Sequence[str]) -> Array:
        """Higher is more of the trait [texts]."""
        return np.asarray(self._model.decision_function(list(texts)) / self._spread, float)
