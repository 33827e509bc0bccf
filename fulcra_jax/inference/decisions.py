# SPDX-License-Identifier: Apache-2.0
"""What is done with an evaluator's probabilities: calibrated ones, classes and sets.

Everything is fitted on labelled rows that the evaluator was not trained on, and lies as
decisions.json beside its weights. N rows, V values, C = 3 classes (-1, 0, +1).
"""

import dataclasses
import functools
import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fulcra_jax import _check, scoring

FILE = "decisions.json"
"""Its name in the directory of a model."""

Three = tuple[float, float, float]


class Decided(NamedTuple):
    """What was decided of N rows."""

    probs: np.ndarray
    """`[N, V, 3]` float32, calibrated."""
    classes: np.ndarray
    """`[N, V]` int32 in {-1, 0, 1}."""
    sets: np.ndarray
    """`[N, V, 3]` bool, True where the class cannot be ruled out."""


@dataclasses.dataclass(frozen=True)
class Decisions:
    """A calibration and a rule that names classes, as numbers.

    Attributes:
      temperature: V temperatures of the values.
      shift: added to the log-probabilities of (-1, 0, +1) when they are calibrated; it
        takes back what class weights in the loss have added, and moves no decision.
      bias: added to the log-probabilities at their temperature when a class is named.
        With zeros the classes are the evaluator's own.
      quantiles: how improbable a class may be and still be in the set.
      alpha: the share of cells of each class whose set may miss it.
      rows: how many labelled rows all this was fitted on.
      data: their name.
      value_bias: V biases in the place of the one, or None.
      from_score: whether the probabilities were made of the score, as for the link
        "tanh", which gives none.
    """

    temperature: tuple[float, ...]
    shift: Three
    bias: Three
    quantiles: Three
    alpha: float
    rows: int
    data: str
    value_bias: tuple[Three, ...] | None = None
    from_score: bool = False

    def __post_init__(self) -> None:
        for name in ("temperature", "shift", "bias", "quantiles"):
            size = None if name == "temperature" else 3
            object.__setattr__(self, name, _numbers(name, getattr(self, name), size))
        if min(self.temperature) <= 0.0:
            raise _error("temperature", min(self.temperature), "positive numbers")
        if not all(0.0 <= q <= 1.0 for q in self.quantiles):
            raise _error("quantiles", self.quantiles, "three numbers in [0, 1]")
        alpha = self.alpha
        if not isinstance(alpha, int | float) or not 0.0 < alpha < 1.0:
            raise _error("alpha", alpha, "a number in (0, 1)")
        _check.whole("decisions.Decisions", "rows", self.rows)
        if not isinstance(self.data, str):
            raise _error("data", self.data, "a text")
        if not isinstance(self.from_score, bool):
            raise _error("from_score", self.from_score, "true or false")
        if self.value_bias is not None:
            V = len(self.temperature)
            if not isinstance(self.value_bias, list | tuple):
                raise _error("value_bias", self.value_bias, "null or a list")
            rows = tuple(_numbers("value_bias", row, 3) for row in self.value_bias)
            if len(rows) != V:
                raise _error("value_bias", f"{len(rows)} rows", f"{V}, one per value")
            object.__setattr__(self, "value_bias", rows)

    @classmethod
    def fit(
        cls,
        probs: np.ndarray,
        labels: np.ndarray,
        where: np.ndarray,
        *,
        alpha: float = 0.1,
        strength: float = 20.0,
        per_value: bool = False,
        bias: bool = True,
        data: str = "",
        from_score: bool = False,
    ) -> "Decisions":
        """Fits everything on labelled rows.

        One temperature and one shift per class by likelihood; a temperature per value,
        pulled to the shared one by the number of labels that are not the value's most
        frequent one; one bias for all values, to pooled macro-F1; quantiles per class
        of the calibrated probabilities.

        Args:
          probs: `[N, V, 3]` float, of `Scores.base()`.
          labels: `[N, V]` float in [-1, 1]; only whole ones are used.
          where: `[N, V]` bool, False where a cell is not labelled.
          alpha: the share of cells of each class whose set may miss it, in (0, 1).
          strength: how many labels of a value weigh as much as all values together.
          per_value: whether to fit a bias per value as well, pulled to the shared one.
            Biases that are not pulled overfit.
          bias: whether to fit biases at all; False names the evaluator's own classes.
          data: a name of the rows.
          from_score: whether `probs` were made of scores.

        Raises:
          ValueError: if shapes disagree, nothing is labelled or a probability that
            counts is NaN.
        """
        caller = "decisions.Decisions.fit"
        _check.shapes(
            caller, probs=(probs, "N V 3"), labels=(labels, "N V"), where=(where, "N V")
        )
        counts = np.asarray(where, bool) & (labels == np.rint(labels))
        if not counts.any():
            raise ValueError(f"{caller}: no cell has a whole label; nothing to fit.")
        if np.isnan(probs[counts]).any():
            raise ValueError(
                f"{caller}: probs holds NaN where a label counts; an evaluator without "
                "probabilities (link 'tanh') is fitted on Scores.base()."
            )
        ids = np.where(counts, np.rint(labels), 0).astype(np.int32) + 1
        found = jax.tree.map(
            np.asarray,
            _fit(
                jnp.asarray(probs, jnp.float32),
                jnp.asarray(ids),
                jnp.asarray(counts),
                alpha=alpha,
                strength=strength,
                per_value=per_value,
            ),
        )
        return cls(
            temperature=found["temperature"].tolist(),
            shift=found["shift"].tolist(),
            bias=found["bias"].tolist() if bias else (0.0, 0.0, 0.0),
            quantiles=found["quantiles"].tolist(),
            alpha=alpha,
            rows=int(counts.any(1).sum()),
            data=data,
            value_bias=found["value_bias"].tolist() if per_value and bias else None,
            from_score=from_score,
        )

    def decide(self, probs: np.ndarray) -> Decided:
        """Calibrated probabilities, classes and sets of N rows.

        A set always holds the class that is named, and never one of probability 0.

        Args:
          probs: `[N, V, 3]` float, as they were fitted.

        Raises:
          ValueError: if V is not the number of temperatures.
        """
        V = len(self.temperature)
        _check.shapes("decisions.Decisions.decide", probs=(probs, f"N {V} 3"))
        bias = self.value_bias if self.value_bias is not None else (self.bias,) * V
        arrays = (self.temperature, self.shift, bias, self.quantiles)
        numbers = [jnp.asarray(x, jnp.float32) for x in arrays]
        found = _decide(jnp.asarray(probs, jnp.float32), *numbers)
        return Decided(*map(np.asarray, found))

    def probs(self, probs: np.ndarray) -> np.ndarray:
        """`[N, V, 3]` float32 calibrated probabilities; see `decide`."""
        return self.decide(probs).probs

    def classes(self, probs: np.ndarray) -> np.ndarray:
        """`[N, V]` int32 in {-1, 0, 1}; see `decide`."""
        return self.decide(probs).classes

    def sets(self, probs: np.ndarray) -> np.ndarray:
        """`[N, V, 3]` bool; with more than one class "unsure"; see `decide`."""
        return self.decide(probs).sets

    def save(self, path: str | pathlib.Path) -> None:
        """Writes a file of JSON; one that was there stays until it is whole."""
        path = pathlib.Path(path)
        half = path.with_name(path.name + ".part")
        text = json.dumps(dataclasses.asdict(self), indent=1, allow_nan=False)
        half.write_text(text + "\n", encoding="utf-8")
        os.replace(half, path)

    @classmethod
    def load(cls, path: str | pathlib.Path) -> "Decisions":
        """Reads a file that `save` wrote.

        Raises:
          FileNotFoundError: if there is no such file.
          ValueError: if it does not hold what it should; it names the file.
        """
        path = pathlib.Path(path)
        try:
            held = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise FileNotFoundError(f"{path}: there is no such file.") from None
        except (ValueError, RecursionError):
            raise ValueError(f"{path}: is not valid JSON.") from None
        names = [field.name for field in dataclasses.fields(cls)]
        if not isinstance(held, dict) or set(held) != set(names):
            raise ValueError(f"{path}: should be an object with {', '.join(names)}.")
        try:
            return cls(**held)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None


def cross_fit(
    probs: np.ndarray,
    labels: np.ndarray,
    where: np.ndarray,
    fold: np.ndarray,
    **options: Any,
) -> Decided:
    """What is decided of each row by decisions that were fitted on the other folds.

    Args:
      probs: `[N, V, 3]` float.
      labels: `[N, V]` float in [-1, 1].
      where: `[N, V]` bool.
      fold: `[N]` any ids; near-duplicate prompts should share one.
      **options: of `Decisions.fit`.

    Raises:
      ValueError: if there are fewer than two folds, or as `Decisions.fit`.
    """
    folds = np.unique(fold)
    if len(folds) < 2:
        raise ValueError(
            f"decisions.cross_fit: fold has {len(folds)} fold; expected two at least."
        )
    N, V = labels.shape
    decided = Decided(
        np.zeros((N, V, 3), np.float32),
        np.zeros((N, V), np.int32),
        np.zeros((N, V, 3), bool),
    )
    for one in folds:
        # Rows of the fold are masked, not deleted: one program for all folds.
        others = where & (fold != one)[:, None]
        found = Decisions.fit(probs, labels, others, **options).decide(probs)
        for whole, part in zip(decided, found, strict=True):
            whole[fold == one] = part[fold == one]
    return decided


@functools.partial(jax.jit, static_argnames=("alpha", "strength", "per_value"))
def _fit(
    probs_nvc: jax.Array,
    ids_nv: jax.Array,
    where_nv: jax.Array,
    *,
    alpha: float,
    strength: float,
    per_value: bool,
) -> Mapping[str, jax.Array]:
    cells = lambda x: x.reshape(-1, *x.shape[2:])
    labels, where = cells(ids_nv), cells(where_nv)
    shared, shift = scoring.fit_temperature_shift(cells(probs_nvc), labels, where=where)
    own_v = jax.vmap(
        lambda p, y, w: scoring.fit_temperature(p, y, shift=shift, where=w), in_axes=1
    )(probs_nvc, ids_nv, where_nv)
    count_vc = (jax.nn.one_hot(ids_nv, 3) * where_nv[..., None]).sum(0)
    rare_v = count_vc.sum(1) - count_vc.max(1)
    log_v = scoring.shrink(jnp.log(own_v), jnp.log(shared), rare_v, strength=strength)
    temperature_v = jnp.exp(log_v)
    calibrated = scoring.temper(probs_nvc, temperature_v, shift)
    tempered = scoring.temper(probs_nvc, temperature_v)
    bias = scoring.fit_class_bias(cells(tempered), labels, where=where)
    found = {
        "temperature": temperature_v,
        "shift": shift,
        "bias": bias,
        "quantiles": scoring.conformal_quantiles(
            cells(calibrated), labels, alpha=alpha, where=where
        ),
    }
    if per_value:
        own_vc = jax.vmap(
            lambda p, y, w: scoring.fit_class_bias(p, y, where=w), in_axes=1
        )(tempered, ids_nv, where_nv)
        # The bias of a class rests on the labels of that class.
        shrink = functools.partial(scoring.shrink, strength=strength)
        pulled = jax.vmap(shrink, in_axes=(1, 0, 1), out_axes=1)
        found["value_bias"] = pulled(own_vc, bias, count_vc)
    return found


@jax.jit
def _decide(
    probs_nvc: jax.Array,
    temperature_v: jax.Array,
    shift_c: jax.Array,
    bias_vc: jax.Array,
    quantile_c: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    calibrated = scoring.temper(probs_nvc, temperature_v, shift_c)
    tempered = scoring.temper(probs_nvc, temperature_v)
    ids = scoring.biased_classes(tempered, bias_vc)
    inside = scoring.conformal_sets(calibrated, quantile_c) & (probs_nvc > 0.0)
    return calibrated, ids - 1, inside | jax.nn.one_hot(ids, 3, dtype=bool)


def _numbers(name: str, x: Any, size: int | None) -> tuple[float, ...]:
    """The numbers as a tuple; raises if they are no finite numbers, or not `size`."""
    wanted = f"{size or 'a list of'} finite numbers"
    if not isinstance(x, list | tuple) or not x or (size and len(x) != size):
        raise _error(name, x, wanted)
    for one in x:
        plain = isinstance(one, int | float) and not isinstance(one, bool)
        if not plain or not math.isfinite(one):
            raise _error(name, one, wanted)
    return tuple(float(one) for one in x)


def _error(name: str, found: Any, wanted: str) -> ValueError:
    return ValueError(
        f"decisions.Decisions: {name} is {found!s:.60}; it should be {wanted}."
    )
