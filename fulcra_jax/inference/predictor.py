# SPDX-License-Identifier: Apache-2.0
"""A run or a model directory -> value scores of (prompt, response) pairs."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fulcra_jax import convert, models, scoring, values
from fulcra_jax.configs import EvaluatorConfig, TokenHead
from fulcra_jax.convert.checkpoint import WEIGHTS
from fulcra_jax.data import batches, valueeval
from fulcra_jax.data.tokenizer import Encoded, PairTokenizer
from fulcra_jax.inference import decisions as decisions_lib
from fulcra_jax.inference.decisions import Decisions
from fulcra_jax.inference.definitions import with_definitions

LADDER = (32, 64, 128, 256, 512)


class Scores(NamedTuple):
    """What the evaluator says of N responses."""

    scores: np.ndarray
    """`[N, 10]` float32 in [-1, 1]: P(+1) - P(-1), or tanh of the logit; one column for
    each of other values."""
    probs: np.ndarray
    """`[N, 10, 3]` float32 of (-1, 0, +1); NaN under the link "tanh"."""
    decisions: Decisions | None = None
    """What `classes`, `calibrated` and `sets` go by. Scores and probs are always the
    evaluator's own, so that those of the same weights stay comparable."""

    def classes(self) -> np.ndarray:
        """`[N, 10]` int32 in {-1, 0, 1}: as decided; without decisions the likeliest
        class, else the nearest label."""
        if self.decisions is not None:
            return self.decisions.classes(self.base())
        if np.isnan(self.probs).any():
            return np.rint(self.scores).astype(np.int32)
        return self.probs.argmax(-1).astype(np.int32) - 1

    def calibrated(self) -> np.ndarray:
        """`[N, 10, 3]` float32: the probabilities as calibrated; without decisions the
        evaluator's own."""
        return (
            self.probs if self.decisions is None else self.decisions.probs(self.base())
        )

    def sets(self) -> np.ndarray:
        """`[N, 10, 3]` bool: the classes that cannot be ruled out; several say that the
        evaluator is unsure.

        Raises:
          ValueError: if there are no decisions.
        """
        if self.decisions is None:
            raise ValueError(
                "predictor.Scores.sets: the evaluator has no decisions.json; python -m "
                "experiments.calibrate RUN fits it."
            )
        return self.decisions.sets(self.base())

    def base(self) -> np.ndarray:
        """`[N, 10, 3]` float32 that decisions are fitted on and applied to: the
        probabilities, or where there are none those that the score suggests."""
        if np.isnan(self.probs).any():
            return np.asarray(scoring.score_probs(jnp.asarray(self.scores)))
        return self.probs


def evaluator_id(path: str | pathlib.Path) -> str:
    """The name under which an evaluator's scores are filed: NAME@HASH.

    NAME is that of the directory (of the run, if its `model/` is given), HASH the first
    twelve digits of the SHA-256 of `model.safetensors`: the same wherever the directory
    lies, another as soon as the weights are.

    Args:
      path: a run or a model directory, as `Predictor.load` takes it.

    Raises:
      FileNotFoundError: if there is no such directory, no weights in it, or the run is
        not finished.
    """
    folder = _model_folder(path)
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise FileNotFoundError(f"{folder}: there is no {WEIGHTS} in it.")
    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    name = folder.resolve()
    of_a_run = name.name == "model" and (name.parent / "config.py").is_file()
    return f"{(name.parent if of_a_run else name).name}@{digest[:12]}"


def _model_folder(path: str | pathlib.Path) -> pathlib.Path:
    """The model directory of a run, or the directory itself."""
    path = pathlib.Path(path)
    if not path.is_dir():
        raise FileNotFoundError(
            f"{path} does not exist; give the directory of a run or of a model."
        )
    if (path / "bag_of_words.npz").is_file():
        raise ValueError(
            f"{path}: holds a bag of words, which stands beside runs; give the "
            "directory of the ensemble that names it."
        )
    if not (path / "config.py").is_file():
        return path
    if not (path / "model").is_dir():
        raise FileNotFoundError(
            f"{path}: the run is not finished; continue it with python -m "
            f"experiments.train --resume {path}."
        )
    return path / "model"


class Predictor:
    """An evaluator with its tokenizer; every call may have any number of texts."""

    def __init__(
        self,
        config: EvaluatorConfig,
        params: Any,
        tokenizer: PairTokenizer,
        *,
        max_length: int,
        ladder: Sequence[int] = LADDER,
        batch_size: int = 32,
        compute_dtype: Any = jnp.float32,
        place: Callable[[batches.Batch], Any] | None = None,
        everywhere: jax.sharding.Sharding | None = None,
        decisions: Decisions | None = None,
    ) -> None:
        """Wraps trained parameters.

        Args:
          config: what the parameters are of.
          params: the evaluator's parameter tree.
          tokenizer: the one it was trained with.
          max_length: most tokens of a pair; what does not fit is cut, the prompt first.
          ladder: lengths that are compiled.
          batch_size: rows per call of the model.
          compute_dtype: of the activations.
          place: spreads a batch over devices; None leaves it to jax.
          everywhere: the sharding of an array that each device holds whole, where
            parameters lie on several; None on one device.
          decisions: what classes go by; None takes the likeliest.

        Raises:
          ValueError: if the batch size is below 1, or the decisions are of another
            number of values or another kind of link.
        """
        if batch_size < 1:
            raise ValueError(
                f"predictor.Predictor: batch_size is {batch_size}; it should be at "
                "least 1."
            )
        if decisions is not None:
            check_decisions(decisions, config)
        self.config = config
        self.decisions = decisions
        self.tokenizer = tokenizer
        self.max_length = max_length
        self._ladder = batches.ladder_up_to(max_length, ladder)
        self._batch_size = batch_size
        evaluator = models.Evaluator(config, dtype=compute_dtype)

        def tables(params: Any) -> models.PositionTables:
            return models.position_tables(
                config.encoder, params["encoder"], compute_dtype
            )

        self._compute_tables = jax.jit(tables)
        self.params = params

        def apply(
            params: Any, tables: models.PositionTables, batch: batches.Batch
        ) -> tuple[jax.Array, jax.Array]:
            output = models.apply_evaluator(evaluator, params, batch, tables=tables)
            link = config.link
            return models.score(output.logits, link), models.probs(output.logits, link)

        self._place = place or (lambda batch: batch)
        self._apply = jax.jit(apply, out_shardings=everywhere)

    @property
    def params(self) -> Any:
        """The evaluator's parameter tree; another of the same shapes may be set."""
        return self._params

    @params.setter
    def params(self, params: Any) -> None:
        self._params = params
        # They depend on no text, so they are computed once and not in every call.
        self._tables = self._compute_tables(params)

    @classmethod
    def load(
        cls,
        path: str | pathlib.Path,
        *,
        batch_size: int = 32,
        names: Sequence[str] = values.BASIC,
        decisions: bool = True,
    ) -> "Predictor":
        """Reads the directory of a finished run, or a model directory.

        Args:
          path: a run (its `model/` is read), or a directory with config.json,
            model.safetensors and a tokenizer.
          batch_size: rows per call of the model.
          names: the values that are needed, as columns of the scores: the ten, or
            `data.valueeval.CATEGORIES`. A model is told by their number.
          decisions: whether a decisions.json in the model's directory is used.

        Raises:
          FileNotFoundError: if there is no such directory, it is neither a run nor a
            model, or the run is not finished.
          ValueError: if the directory holds an ensemble, no value head, another
            number of values, or a decisions.json that is damaged or does not fit.
        """
        path = _model_folder(path)
        if (path / "ensemble.json").is_file():
            raise ValueError(
                f"{path}: holds an ensemble; inference.load_predictor reads it."
            )
        if not (path / "config.json").is_file():
            raise FileNotFoundError(
                f"{path}: is neither a run, which has a config.py, nor a model, which "
                "has a config.json."
            )
        models.load_registered()
        config, params = convert.load(path)
        if not isinstance(config, EvaluatorConfig):
            raise ValueError(
                f"{path}: holds an encoder without a value head; train one with "
                f"python -m experiments.train paper --data FOLDER --pretrained {path}."
            )
        if config.head.num_values != len(names):
            hint = ""
            if config.head.num_values == len(valueeval.CATEGORIES):
                hint = (
                    " It seems to judge the categories of ValueEval'23: python -m "
                    "experiments.evaluate takes such a run."
                )
            raise ValueError(
                f"{path}: its head has {config.head.num_values} values; {len(names)} "
                f"are needed here.{hint}"
            )
        tokenizer = PairTokenizer.load(path)
        beside = path / decisions_lib.FILE
        return cls(
            config,
            params,
            tokenizer,
            max_length=tokenizer.max_length or config.encoder.max_position_embeddings,
            batch_size=batch_size,
            decisions=Decisions.load(beside)
            if decisions and beside.is_file()
            else None,
        )

    def for_values(self, definitions: Mapping[str, str]) -> "Predictor":
        """The same evaluator for other values, judged by their definitions alone.

        Args:
          definitions: name -> definition of V values; they are the columns of the
            scores, in this order.

        Raises:
          ValueError: if the evaluator's head reads no definitions, or one is empty.
        """
        head = self.config.head
        if not head.reads_definitions or isinstance(head, TokenHead):
            raise ValueError(
                f"predictor.for_values: the evaluator has a {type(head).__name__}, "
                "which has learned its values; one that reads definitions is needed, "
                "as PromptedHead(), or QueryHead(values='definition')."
            )
        head = with_definitions(head, self.tokenizer, definitions)
        return Predictor(
            dataclasses.replace(self.config, head=head),
            self.params,
            self.tokenizer,
            max_length=self.max_length,
            ladder=self._ladder,
            batch_size=self._batch_size,
        )

    def score(
        self,
        prompts: Sequence[str],
        responses: Sequence[str],
        *,
        progress: Callable[[int], None] | None = None,
    ) -> Scores:
        """Value scores of N responses, each to its prompt.

        Args:
          prompts: N texts.
          responses: N texts.
          progress: called with the number of rows done after each batch.

        Returns:
          Scores and class probabilities in the order of the input.

        Raises:
          ValueError: if the numbers of texts differ.
        """
        encoded = self.tokenizer.encode(prompts, responses, max_length=self.max_length)
        return self.score_encoded(encoded, progress=progress)

    def score_encoded(
        self, encoded: Encoded, *, progress: Callable[[int], None] | None = None
    ) -> Scores:
        """Value scores of N tokenised pairs; `score` tokenises for you.

        Raises:
          ValueError: if a pair holds an id or a type that the encoder has no row for,
            or is longer than its absolute positions reach.
        """
        N, V = len(encoded.ids), self.config.head.num_values
        for row, (ids, types) in enumerate(
            zip(encoded.ids, encoded.types, strict=True)
        ):
            caller = f"predictor.score_encoded, pair {row}"
            models.check_ids(caller, self.config.encoder, ids, types)
        examples = batches.Examples(
            encoded, np.zeros((N, V), np.float32), np.zeros((N, V), bool)
        )
        scores = np.zeros((N, V), np.float32)
        probs = np.zeros((N, V, 3), np.float32)
        done = 0
        for rows, batch in batches.eval_batches(
            examples,
            batch_size=self._batch_size,
            ladder=self._ladder,
            pad_id=self.tokenizer.pad_id,
        ):
            score_bv, probs_bvc = self._apply(
                self.params, self._tables, self._place(batch)
            )
            scores[rows] = np.asarray(score_bv)[: len(rows)]
            probs[rows] = np.asarray(probs_bvc)[: len(rows)]
            done += len(rows)
            if progress:
                progress(done)
        return Scores(scores, probs, self.decisions)


def check_decisions(
    decisions: Decisions, config: EvaluatorConfig, caller: str = "predictor.Predictor"
) -> None:
    """Raises ValueError if they were fitted on an evaluator of another kind."""
    found, needed = len(decisions.temperature), config.head.num_values
    if found != needed:
        raise ValueError(
            f"{caller}: decisions are of {found} values; the evaluator judges {needed}."
        )
    if decisions.from_score != (config.link == "tanh"):
        kind = "scores" if decisions.from_score else "probabilities"
        raise ValueError(
            f"{caller}: decisions were fitted on {kind}, which the link "
            f"{config.link!r} does not go by; fit them on this evaluator."
        )
