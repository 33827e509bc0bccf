# SPDX-License-Identifier: Apache-2.0
"""What a target ignores and risks, before a model is trained on it."""

import dataclasses
import itertools
from typing import NamedTuple

import jax
import numpy as np

from fulcra_jax import values

SUPPORT_RATES: np.ndarray = np.array(
    [0.271, 0.043, 0.022, 0.308, 0.069, 0.223, 0.038, 0.166, 0.280, 0.200]
)
"""`[V]` share of FULCRA's 20,000 responses labelled +1, read off a figure (+-.001)."""

OPPOSE_RATES: np.ndarray = np.array(
    [0.043, 0.001, 0.001, 0.002, 0.003, 0.087, 0.006, 0.104, 0.081, 0.026]
)
"""`[V]` share labelled -1."""

POLE_FIT = 0.43
"""What the circle explains at least of a higher-order pole; see `CircleFit`."""

SUPPORT_RATES.setflags(write=False)
OPPOSE_RATES.setflags(write=False)


class CircleFit(NamedTuple):
    """A target as a cosine over the circle: level + amplitude cos(place - angle)."""

    level: float
    amplitude: float
    angle: float
    """Radians in [0, 2 pi), as in `values.ring_angles`."""
    r_squared: float
    """Share of the variance that the cosine explains; NaN for a constant target."""


@dataclasses.dataclass(frozen=True)
class TargetCheck:
    """What `check_target` found; `print` shows the sentences."""

    sentences: tuple[str, ...]
    out_of_range: tuple[str, ...]
    """Values with |t| > 1."""
    zeros: tuple[str, ...]
    """Values with t = 0."""
    quiet: tuple[str, ...]
    """Values with 0 < |t| <= threshold: less than the evaluator calls a connection."""
    tensions: tuple[tuple[str, str], ...]
    """Opposite values that are both wanted, the strongest pair first."""
    silence_wins: float
    """Share of answers that an answer without values beats in plain L1 distance."""
    silence_always_wins: bool
    """No |t| is above 1/2: showing a value fully never pays in plain L1 distance."""
    circle: CircleFit

    def __str__(self) -> str:
        """The sentences, one a line."""
        return "\n".join(self.sentences)

    def summary(self) -> str:
        """The figures in one line."""
        fit = self.circle.r_squared
        return (
            f"zero {len(self.zeros)}, quiet {len(self.quiet)}, "
            f"tensions {len(self.tensions)}, silence wins {self.silence_wins:.0%}, "
            f"circle {'none' if np.isnan(fit) else f'{fit:.2f}'}"
        )


def check_target(
    target: jax.Array | np.ndarray,
    *,
    threshold: float = 0.3,
    opposite_degrees: float = 150.0,
) -> TargetCheck:
    """Says what a target ignores and risks.

    Silence: an answer v beats the answer without values if sum_k |v_k - t_k| <
    sum_k |t_k|. For v in {-1, 0, 1}, showing a value in the right direction gains only
    if |t_k| > 1/2. `silence_wins` is the share that loses of the answers with at least
    one value, drawn from the label rates of FULCRA, values independent. It is a guess:
    prompts differ, and real scores are noisy around 0, which costs every answer more.

    Args:
      target: `[10]` in the order of `values.BASIC`.
      threshold: the largest |v| that the evaluator calls "no connection".
      opposite_degrees: values at least so far apart on the circle oppose each other;
        150 takes those straight across.

    Returns:
      `TargetCheck`. A host function; nothing in it can be traced.

    Raises:
      ValueError: if the target has not ten finite entries.

    Reference:
      Schwartz 1992 (opposition and the circle); Yao et al. 2024, released code (the
      threshold, the weights |t|, the distances e and h).

    >>> print(check_target(np.array([0, 0, 0, 0, 0.9, 0, 0, 0, 0, 0.6])))
    Ignored by the released reward, which weighs by |t|: SD, ST, HE, AC, SE, TR, CO, BE.
    Opposite values are wanted together: PO and UN; few answers can show both.
    In plain L1 distance silence beats 96% of the answers that show a value.
    No entry is 1: the released e and h distances, of such entries alone, are 0.
    The circle explains 2% of it, less than of any pole: its values lie apart.
    >>> from fulcra_jax.targets.explicit import EXPLICIT
    >>> for name, named in EXPLICIT.items():
    ...     print(f"{name}: {check_target(named.vector).summary()}")
    ideal: zero 5, quiet 0, tensions 2, silence wins 27%, circle 0.22
    harmless: zero 8, quiet 0, tensions 0, silence wins 78%, circle 0.34
    evaluation: zero 6, quiet 0, tensions 0, silence wins 45%, circle 0.50
    uk: zero 0, quiet 6, tensions 9, silence wins 84%, circle 0.68
    netherlands: zero 0, quiet 5, tensions 9, silence wins 83%, circle 0.62
    france: zero 0, quiet 4, tensions 4, silence wins 89%, circle 0.53
    openness to change: zero 7, quiet 0, tensions 0, silence wins 82%, circle 0.71
    self-enhancement: zero 8, quiet 0, tensions 0, silence wins 80%, circle 0.51
    conservation: zero 7, quiet 0, tensions 0, silence wins 76%, circle 0.58
    self-transcendence: zero 8, quiet 0, tensions 0, silence wins 72%, circle 0.43
    """
    t = np.asarray(target, np.float64)
    if t.shape != (10,) or not np.isfinite(t).all():
        raise ValueError(
            f"check.check_target: target has shape {t.shape} and "
            f"{int((~np.isfinite(t)).sum())} entries that are not finite; expected ten "
            "finite numbers."
        )
    size = np.abs(t)
    tensions = _tensions(t, np.radians(opposite_degrees))
    found = {
        "out_of_range": _names(size > 1.0),
        "zeros": _names(size == 0.0),
        "quiet": _names((size > 0.0) & (size <= threshold)),
        "tensions": tensions,
        "silence_wins": _silence_wins(t),
        "silence_always_wins": bool((size <= 0.5).all()),
        "circle": _circle(t),
    }
    return TargetCheck(sentences=_sentences(t, threshold, found), **found)


def _names(chosen: np.ndarray) -> tuple[str, ...]:
    return tuple(itertools.compress(values.ABBREVIATIONS, chosen))


def _tensions(t: np.ndarray, opposite: float) -> tuple[tuple[str, str], ...]:
    angles = values.ring_angles()
    pairs = []
    for i, j in itertools.combinations(range(len(t)), 2):
        apart = abs(np.angle(np.exp(1j * (angles[i] - angles[j]))))
        if apart >= opposite - 1e-9 and min(t[i], t[j]) > 0.0:
            pairs.append((-min(t[i], t[j]), i, j))
    names = values.ABBREVIATIONS
    return tuple((names[i], names[j]) for _, i, j in sorted(pairs))


def _silence_wins(t: np.ndarray) -> float:
    """Over all 3^10 ternary answers, value by value: gain over silence -> probability.

    Answers with equal gains so far are one, so the table stays small.
    """
    table = {(0.0, False): 1.0}
    rates = zip(t, SUPPORT_RATES, OPPOSE_RATES, strict=True)
    for entry, support, oppose in rates:
        longer: dict[tuple[float, bool], float] = {}
        for (cost, shown), probability in table.items():
            for v, rate in (
                (1.0, support),
                (-1.0, oppose),
                (0.0, 1 - support - oppose),
            ):
                step = abs(v - entry) - abs(entry)
                after = (round(cost + step, 9), shown or v != 0.0)
                longer[after] = longer.get(after, 0.0) + probability * rate
        table = longer
    shown = {cost: p for (cost, some), p in table.items() if some}
    return sum(p for cost, p in shown.items() if cost > 0.0) / sum(shown.values())


def _circle(t: np.ndarray) -> CircleFit:
    angles = values.ring_angles()
    design = np.stack([np.ones(len(t)), np.cos(angles), np.sin(angles)], 1)
    fit, *_ = np.linalg.lstsq(design, t, rcond=None)
    total = ((t - t.mean()) ** 2).sum()
    left = ((t - design @ fit) ** 2).sum()
    varies = np.ptp(t) > 0.0
    return CircleFit(
        level=float(fit[0]),
        amplitude=float(np.hypot(fit[1], fit[2])) if varies else 0.0,
        angle=float(np.arctan2(fit[2], fit[1]) % (2 * np.pi)) if varies else 0.0,
        r_squared=float(1.0 - left / total) if varies else float("nan"),
    )


def _sentences(t: np.ndarray, threshold: float, found: dict) -> tuple[str, ...]:
    said = []
    if not t.any():
        return ("It is zero everywhere: no answer is better than another.",)
    if found["out_of_range"]:
        said.append(
            f"Outside [-1, 1], so out of reach of any score: "
            f"{', '.join(found['out_of_range'])}."
        )
    if found["zeros"]:
        said.append(
            "Ignored by the released reward, which weighs by |t|: "
            f"{', '.join(found['zeros'])}."
        )
    if found["quiet"]:
        said.append(
            f"Asked for by at most {threshold:g}, where the evaluator sees no "
            f"connection: {', '.join(found['quiet'])}."
        )
    if found["tensions"]:
        first = found["tensions"][:3]
        more = len(found["tensions"]) - len(first)
        said.append(
            "Opposite values are wanted together: "
            f"{', '.join(f'{a} and {b}' for a, b in first)}"
            f"{f' and {more} more' if more else ''}; few answers can show both."
        )
    if found["silence_always_wins"]:
        said.append(
            "No |t| is above 1/2: in plain L1 distance silence beats every answer that "
            "shows a value fully. Scale it, or use the default reward."
        )
    elif found["silence_wins"] > 0.5:
        said.append(
            f"In plain L1 distance silence beats {found['silence_wins']:.0%} of the "
            "answers that show a value."
        )
    if not (t == 1.0).any():
        said.append(
            "No entry is 1: the released e and h distances, of such entries alone, are "
            "0."
        )
    circle = found["circle"]
    if not np.isnan(circle.r_squared):
        turned = np.angle(np.exp(1j * (values.ring_angles() - circle.angle)))
        nearest = values.ABBREVIATIONS[int(np.abs(turned).argmin())]
        apart = circle.r_squared < POLE_FIT
        said.append(
            f"The circle explains {circle.r_squared:.0%} of it, "
            + (
                "less than of any pole: its values lie apart."
                if apart
                else f"pointing to {nearest}."
            )
        )
    return tuple(said)
