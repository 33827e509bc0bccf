# SPDX-License-Identifier: Apache-2.0
"""Counted words as an evaluator of their own, and as what stands beside another.

On a thousand rows exact statistics of words know things that a small encoder does not,
as rare insults and names; `Ensemble` takes both. scikit-learn counts and fits. N rows,
V values, F features, C = 3 classes (-1, 0, +1).
"""

import json
import os
import pathlib
import zipfile
import zlib
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np

from fulcra_jax import _extras
from fulcra_jax.inference.predictor import Scores

FILE = "bag_of_words.npz"
"""Its name in a directory."""

ARCHIVE_ERRORS = (
    ValueError, KeyError, TypeError, EOFError, OSError, RecursionError,
    NotImplementedError, MemoryError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What reading a damaged .npz raises. Of one changed byte: NotImplementedError where
the archive then names another compression, MemoryError where the header of an array
claims more than there is."""

_PARTS: tuple[dict[str, Any], ...] = (
    {"ngram_range": (1, 2)},
    {"ngram_range": (3, 5), "analyzer": "char_wb"},
)
"""Words and pairs of words; 3 to 5 letters within words."""


def features() -> Any:
    """An unfitted transformer: TF-IDF of words, word pairs and letters within words.

    Raises:
      ModuleNotFoundError: if scikit-learn is missing; it says what brings it.
    """
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.pipeline import make_union
    except ModuleNotFoundError as error:
        raise _extras.missing("fulcra_jax.inference", "words", error) from None
    shared: dict[str, Any] = {"sublinear_tf": True, "min_df": 2}
    return make_union(*(TfidfVectorizer(**part, **shared) for part in _PARTS))


class BagOfWords:
    """TF-IDF of the response and a balanced logistic regression for each value."""

    def __init__(
        self,
        vocabularies: Sequence[Sequence[str]],
        idf: np.ndarray,
        kernel: np.ndarray,
        bias: np.ndarray,
    ) -> None:
        """Wraps fitted numbers; `fit` and `load` make them.

        Args:
          vocabularies: two lists of terms, F in all: words and word pairs, letters.
          idf: `[F]` float, inverse document frequencies in that order.
          kernel: `[F, V, 3]` float.
          bias: `[V, 3]` float; -inf for a class that a value has never had.

        Raises:
          ValueError: if the shapes do not fit together, a term stands twice, or a
            number is none.
        """
        F = sum(len(terms) for terms in vocabularies)
        V = len(bias)
        shapes = idf.shape, kernel.shape, bias.shape, len(vocabularies)
        if shapes != ((F,), (F, V, 3), (V, 3), len(_PARTS)):
            raise ValueError(
                f"bag_of_words.BagOfWords: {len(vocabularies)} vocabularies of {F} "
                f"terms, idf {idf.shape}, kernel {kernel.shape}, bias {bias.shape}; "
                f"should be {len(_PARTS)}, [F], [F, V, 3], [V, 3]."
            )
        for terms in vocabularies:
            if not terms or len(set(terms)) != len(terms):
                raise ValueError(
                    "bag_of_words.BagOfWords: a vocabulary is empty or has a term "
                    "twice; each term should stand once."
                )
        real = all(np.issubdtype(x.dtype, np.floating) for x in (idf, kernel, bias))
        known = real and np.isfinite(bias).any(-1).all()
        if not known or np.isnan(bias).any() or (bias == np.inf).any():
            raise ValueError(
                "bag_of_words.BagOfWords: idf, kernel and bias should be real numbers, "
                "a bias may be -inf, but not all of a value's."
            )
        if not (np.isfinite(idf).all() and np.isfinite(kernel).all()):
            raise ValueError(
                "bag_of_words.BagOfWords: idf or kernel holds NaN or an infinity."
            )
        self.vocabularies = tuple(list(terms) for terms in vocabularies)
        self.idf, self.bias = idf.astype(np.float64), bias.astype(np.float64)
        self.kernel = kernel.astype(np.float32)
        self._features: Any = None

    @property
    def num_values(self) -> int:
        """V."""
        return len(self.bias)

    @classmethod
    def fit(
        cls, responses: Sequence[str], labels: np.ndarray, where: np.ndarray
    ) -> "BagOfWords":
        """Counts the words of N responses and fits each value's classes.

        A value with one class among its labels has always that, one without labels 0.

        Args:
          responses: N texts.
          labels: `[N, V]` float in [-1, 1]; the nearest of -1, 0, +1 counts.
          where: `[N, V]` bool, which labels there are.

        Raises:
          ModuleNotFoundError: if scikit-learn is missing.
          TypeError: if a response is no text.
          ValueError: if the shapes disagree, a label that counts is not in [-1, 1], or
            no word of two letters occurs in two responses.

        >>> texts = ["gold and gold", "more gold", "only sand", "sand again"]
        >>> labels = np.array([[1.0], [1.0], [-1.0], [-1.0]])
        >>> words = BagOfWords.fit(texts, labels, labels == labels)
        >>> words.score(["", ""], ["gold", "sand"]).classes().tolist()
        [[1], [-1]]
        """
        labels, where = np.asarray(labels), np.asarray(where, bool)
        shape = labels.shape
        if labels.ndim != 2 or where.shape != shape or len(responses) != len(labels):
            raise ValueError(
                f"bag_of_words.fit: {len(responses)} responses, labels {shape}, "
                f"where {where.shape}; expected N, [N, V], [N, V]."
            )
        if not (np.abs(labels[where]) <= 1).all():
            raise ValueError(
                "bag_of_words.fit: labels holds NaN or a number outside [-1, 1] where "
                "one counts."
            )
        _check_texts("fit", responses)
        union = features()
        import joblib
        from sklearn.linear_model import LogisticRegression

        try:
            x = union.fit_transform(responses)
        except ValueError as error:
            raise ValueError(
                f"bag_of_words.fit: {len(responses)} responses have too few words in "
                f"common to count any ({error!s:.80}); at least two should share one."
            ) from None
        classes = np.rint(np.where(where, labels, 0)).astype(int)
        V = labels.shape[1]
        kernel = np.zeros((x.shape[1], V, 3), np.float32)
        bias = np.full((V, 3), -np.inf)

        def one(column: int) -> None:
            counts = where[:, column]
            seen = np.unique(classes[counts, column])
            if len(seen) < 2:  # nothing to learn: the one label there is, or 0
                bias[column, (seen[0] if len(seen) else 0) + 1] = 0.0
                return
            model = LogisticRegression(C=1.0, class_weight="balanced", max_iter=2000)
            model.fit(x[counts], classes[counts, column])
            # Of two classes it fits one row, the second's logit over the first's.
            own = model.classes_[-len(model.coef_) :] + 1
            bias[column, model.classes_ + 1] = 0.0
            kernel[:, column, own] = model.coef_.T
            bias[column, own] = model.intercept_

        # Threads: products of sparse matrices run outside the interpreter's lock.
        joblib.Parallel(n_jobs=-1, prefer="threads")(
            joblib.delayed(one)(column) for column in range(V)
        )
        parts = [part for _, part in union.transformer_list]
        found = cls(
            [part.get_feature_names_out().tolist() for part in parts],
            np.concatenate([part.idf_ for part in parts]),
            kernel,
            bias,
        )
        found._features = union
        return found

    def score(
        self,
        prompts: Sequence[str],
        responses: Sequence[str],
        *,
        progress: Callable[[int], None] | None = None,
    ) -> Scores:
        """What the words of N responses say; the prompts are not read.

        Args:
          prompts: N texts.
          responses: N texts.
          progress: called with N at the end.

        Raises:
          TypeError: if a response is no text.
          ValueError: if the numbers of texts differ.
        """
        N = len(responses)
        _check_texts("score", responses)
        if len(prompts) != N:
            raise ValueError(
                f"bag_of_words.score: {len(prompts)} prompts and {N} responses; there "
                "should be as many."
            )
        F, V = self.kernel.shape[:2]
        if N:
            x = self._transformer().transform(responses)
            linear = np.asarray(x @ self.kernel.reshape(F, V * 3))
        else:
            linear = np.zeros((0, V * 3))
        logits = linear.reshape(N, V, 3) + self.bias
        exp = np.exp(logits - logits.max(-1, keepdims=True))
        probs = (exp / exp.sum(-1, keepdims=True)).astype(np.float32)
        if progress:
            progress(N)
        return Scores(probs[..., 2] - probs[..., 0], probs)

    def save(self, path: str | pathlib.Path) -> None:
        """Writes bag_of_words.npz to a directory."""
        folder = pathlib.Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        terms = json.dumps(self.vocabularies).encode()
        temporary = folder / f".{FILE}.{os.getpid()}"
        with temporary.open("wb") as file:
            np.savez_compressed(
                file,
                vocabularies=np.frombuffer(terms, np.uint8),
                idf=self.idf,
                kernel=self.kernel,
                bias=self.bias,
            )
        temporary.replace(folder / FILE)

    @classmethod
    def load(cls, path: str | pathlib.Path) -> "BagOfWords":
        """Reads a directory that `save` wrote; nothing in it is executed.

        Raises:
          FileNotFoundError: if there is no bag_of_words.npz in it.
          ValueError: if that is damaged.
        """
        file = pathlib.Path(path) / FILE
        if not file.is_file():
            raise FileNotFoundError(f"{path}: there is no {FILE} in it.")
        try:
            with file.open("rb") as opened, np.load(opened, allow_pickle=False) as held:
                terms = json.loads(held["vocabularies"].tobytes())
                if not all(isinstance(term, str) for part in terms for term in part):
                    raise TypeError("a term is no text")
                return cls(terms, held["idf"], held["kernel"], held["bias"])
        except ARCHIVE_ERRORS as error:
            raise ValueError(f"{file}: is no bag of words ({error!s:.120}).") from None

    def _transformer(self) -> Any:
        if self._features is None:
            union = features()
            begin = 0
            for (_, part), terms in zip(
                union.transformer_list, self.vocabularies, strict=True
            ):
                end = begin + len(terms)
                part.set_params(vocabulary=cast(Any, terms))
                part.idf_ = self.idf[begin:end]
                begin = end
            self._features = union
        return self._features


def pooled(probs: np.ndarray, words: np.ndarray, weight: float) -> np.ndarray:
    """What an evaluator and a bag of words say together.

    The weighted mean of log-probabilities, normalised, over the classes that the words
    know. A class that they have never seen with a value has probability 0 from them,
    which is no knowledge: it keeps what the evaluator gives it.

    Args:
      probs: `[..., 3]` float, of the evaluator.
      words: `[..., 3]` float, of the words, 0 for a class they do not know.
      weight: of the words, in [0, 1]; with 0 the evaluator's own are left.

    Returns:
      `[..., 3]` float32 summing to one.

    Reference:
      `scoring.log_pool`, on the classes that are known.

    >>> probs = np.array([[0.2, 0.5, 0.3]])
    >>> both = pooled(probs, np.array([[0.0, 0.8, 0.2]]), 0.5)
    >>> [round(float(p), 3) for p in both[0]]
    [0.2, 0.577, 0.223]
    """
    known = words > 0
    tiny = np.finfo(np.float64).tiny
    log = lambda x: np.log(np.maximum(np.asarray(x, np.float64), tiny))
    mixed = np.exp((1.0 - weight) * log(probs) + weight * log(words)) * known
    total = mixed.sum(-1, keepdims=True)
    mass = np.where(known, probs, 0.0).sum(-1, keepdims=True)
    share = np.divide(mixed, total, out=np.zeros_like(mixed), where=total > 0)
    return np.where(known, share * mass, probs).astype(np.float32)


def _check_texts(caller: str, texts: Sequence[str]) -> None:
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(
                f"bag_of_words.{caller}: response {place} is of type "
                f"{type(text).__name__}; it should be a text."
            )
