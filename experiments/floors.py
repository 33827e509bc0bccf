# SPDX-License-Identifier: Apache-2.0
"""Floors that need no neural network; a figure without one says nothing.

majority: the most frequent label of each value among the training rows, for every row.
TF-IDF + LR: words and pairs of words, and 3 to 5 letters within words, of the response
alone; one balanced logistic regression per value. A bag of words with exact statistics
is hard to beat on a thousand rows.
"""

from collections.abc import Sequence
from typing import cast

import joblib
import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_union

from fulcra_jax.data.rows import Row
from fulcra_jax.data.source import label_arrays
from fulcra_jax.report.evaluation import Answers


def majority(train: Sequence[Row], held: Sequence[Row]) -> Answers:
    """The most frequent label of each value; 0 for a value without labels."""
    labels, where = label_arrays(list(train))
    most = np.zeros(labels.shape[1], int)
    for column in range(len(most)):
        seen = np.rint(labels[where[:, column], column]).astype(int)
        counts = [(seen == label).sum() for label in (-1, 0, 1)]
        most[column] = int(np.argmax(counts)) - 1 if len(seen) else 0
    classes = np.tile(most, (len(held), 1))
    return Answers("majority", classes, classes.astype(np.float32))


def tfidf(train: Sequence[Row], held: Sequence[Row]) -> Answers:
    """TF-IDF of the response and a balanced logistic regression per value; rows of a
    teacher's scores are no part of it."""
    train = [row for row in train if row.teacher is None]
    labels, where = label_arrays(list(train))
    classes = np.rint(labels).astype(int)
    features = make_union(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2),
        TfidfVectorizer(
            analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True, min_df=2
        ),
    )
    x_train = features.fit_transform([row.response for row in train])
    x_held = features.transform([row.response for row in held])

    def one(column: int) -> np.ndarray:
        probs = np.zeros((len(held), 3), np.float32)
        counts = where[:, column]
        seen = np.unique(classes[counts, column])
        if len(seen) < 2:  # nothing to learn: the one label there is, or 0
            probs[:, (seen[0] if len(seen) else 0) + 1] = 1.0
            return probs
        model = LogisticRegression(C=1.0, class_weight="balanced", max_iter=2000)
        model.fit(x_train[counts], classes[counts, column])
        probs[:, model.classes_ + 1] = model.predict_proba(x_held)
        return probs

    # Threads: the products of sparse matrices run outside the interpreter's lock.
    columns = cast(
        list[np.ndarray],
        joblib.Parallel(n_jobs=-1, prefer="threads")(
            joblib.delayed(one)(column) for column in range(labels.shape[1])
        ),
    )
    probs = np.stack(columns, 1)
    scores = probs[..., 2] - probs[..., 0]
    return Answers("TF-IDF + LR", probs.argmax(-1) - 1, scores, probs)
