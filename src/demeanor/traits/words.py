"""A bag of words as the yardstick: how far the words alone tell the poles apart."""

from __future__ import annotations

from collections.abc import Sequence

from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import Pipeline, make_pipeline


def bag_of_words(phrases: bool = False) -> Pipeline:
    """A logistic regression on which words a text holds; with `phrases` on words and pairs of words by how telling each is (TF-IDF)."""
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2) if phrases else CountVectorizer(binary=True, min_df=2)
    return make_pipeline(words, LogisticRegression(C=10.0 if phrases else 1.0, max_iter=1000))


def words_auroc(
    train: Sequence[str], train_high: Sequence[bool], test: Sequence[str], test_high: Sequence[bool], phrases: bool = False
) -> float:
    """AUROC on `test` of a logistic regression on the words of `train`; 0.5 where the texts share no word.

    By default it knows which words occur, as is fit for judging a pack. With `phrases` it also knows pairs of words and
    how telling each is (TF-IDF): a stronger baseline for a vector to beat.
    """
    model = bag_of_words(phrases)
    try:
        model.fit(train, train_high)
    except ValueError:  # no word stands in two texts
        return 0.5
    return float(roc_auc_score(test_high, model.decision_function(test)))
