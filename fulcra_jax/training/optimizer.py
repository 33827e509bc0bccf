# SPDX-License-Identifier: Apache-2.0
"""AdamW with linear warm-up and a decay, as one validated dataclass."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any, Literal

import jax
import optax

from fulcra_jax.training import freeze

_NO_DECAY = ("bias", "scale")


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """AdamW (Loshchilov & Hutter 2019). The defaults are those of the released code."""

    peak_lr: float = 1e-5
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """What follows the warm-up; cosine and linear fall to zero at the last step."""
    warmup_steps: int = 50
    b1: float = 0.9
    b2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.0
    """Decoupled decay; biases and norms are left out."""
    clip_norm: float = 0.0
    """Largest global norm of the gradient; 0 does not clip."""
    layer_decay: float = 1.0
    """Learning rate of a layer over that of the one above it; 1 treats all alike. The
    head has `peak_lr`, the embeddings the lowest."""
    head_rate: float = 1.0
    """Learning rate of the head over `peak_lr`: a head begins at random weights, a
    pretrained encoder does not."""
    average: float = 0.0
    """Decay of a moving average of the parameters, which is then judged and exported;
    0 keeps none."""
    freeze: str = ""
    """Parameters that are not trained: a regular expression for whole paths, as
    "encoder/(embeddings|layer_[0-2])/.*". Nothing is kept for them but themselves.
    `layer_decay` counts from the highest layer that is trained."""

    def __post_init__(self) -> None:
        for field, low, high in (
            ("peak_lr", 0.0, 10.0),
            ("warmup_steps", 0, 10**9),
            ("b1", 0.0, 0.999999),
            ("b2", 0.0, 0.999999),
            ("eps", 0.0, 1.0),
            ("weight_decay", 0.0, 100.0),
            ("clip_norm", 0.0, 1e9),
            ("layer_decay", 0.0, 1.0),
            ("head_rate", 0.0, 1000.0),
            ("average", 0.0, 0.999999),
        ):
            number = getattr(self, field)
            above = field in ("peak_lr", "eps", "layer_decay", "head_rate")
            if not low <= number <= high or (above and number == 0):
                raise ValueError(
                    f"optimizer.Optimizer: {field} is {number}; it should be in "
                    f"{'(' if above else '['}{low}, {high}]."
                )
        if self.schedule not in ("cosine", "linear", "constant"):
            raise ValueError(
                f"optimizer.Optimizer: schedule is {self.schedule!r}; it should be "
                "cosine, linear or constant."
            )
        freeze.matches({}, self.freeze)


def learning_rate(config: Optimizer, steps: int) -> optax.Schedule:
    """Linear warm-up to `peak_lr`, then the decay, over `steps` in all.

    Raises:
      ValueError: if the warm-up is longer than the training.
    """
    if config.warmup_steps >= steps:
        raise ValueError(
            f"optimizer.learning_rate: warmup_steps is {config.warmup_steps}, but "
            f"there are only {steps} steps; give a smaller optimizer.warmup_steps."
        )
    rest = steps - config.warmup_steps
    match config.schedule:
        case "cosine":
            decay = optax.cosine_decay_schedule(config.peak_lr, rest)
        case "linear":
            decay = optax.linear_schedule(config.peak_lr, 0.0, rest)
        case "constant":
            decay = optax.constant_schedule(config.peak_lr)
    if config.warmup_steps == 0:
        return decay
    warmup = optax.linear_schedule(0.0, config.peak_lr, config.warmup_steps)
    return optax.join_schedules([warmup, decay], [config.warmup_steps])


def make_optimizer(config: Optimizer, steps: int) -> optax.GradientTransformation:
    """The optimizer of a run of `steps` steps.

    Raises:
      ValueError: as `learning_rate`; its `init`, if `freeze` matches no parameter or
        all.
    """
    adamw = optax.adamw(
        learning_rate(config, steps),
        b1=config.b1,
        b2=config.b2,
        eps=config.eps,
        weight_decay=config.weight_decay,
        mask=decays,
    )
    parts: list[optax.GradientTransformation] = [adamw]
    if config.clip_norm:
        parts.insert(0, optax.clip_by_global_norm(config.clip_norm))
    if config.layer_decay != 1.0 or config.head_rate != 1.0:
        parts.append(scale_by_layer(config.layer_decay, head=config.head_rate))
    made = optax.chain(*parts) if len(parts) > 1 else adamw
    return freeze.apart(made, config.freeze) if config.freeze else made


def scale_by_layer(decay: float, *, head: float = 1.0) -> optax.GradientTransformation:
    """Updates smaller by a factor for every layer below the head.

    Of L layers, counted from 0, layer l has the factor decay^(L - l), embeddings,
    position table and what else serves all layers decay^(L + 1), the head `head`. After
    AdamW it scales the learning rate, and with it the weight decay.

    Args:
      decay: the factor of one layer, (0, 1].
      head: the factor of the head.

    Reference:
      Clark et al. 2020 (arXiv 2003.10555), appendix B: layer-wise learning rate decay.
    """

    def update(updates: Any, params: Any) -> Any:
        del params
        names = [
            jax.tree_util.keystr(path, simple=True, separator="/")
            for path, _ in jax.tree_util.tree_flatten_with_path(updates)[0]
        ]
        below = layers_below(names)
        leaves, structure = jax.tree.flatten(updates)
        factors = [decay**n if n else head for n in below]
        scaled = [leaf * by for leaf, by in zip(leaves, factors, strict=True)]
        return jax.tree.unflatten(structure, scaled)

    return optax.stateless(update)


def layers_below(names: Sequence[str]) -> list[int]:
    """How many layers a leaf lies below the head, by its path.

    >>> paths = ["encoder/embeddings/word", "encoder/layer_0/up", "encoder/layer_1/up"]
    >>> layers_below([*paths, "head/values"])
    [3, 2, 1, 0]
    """
    found = [re.search(r"(?:^|/)layer_(\d+)/", name) for name in names]
    L = max((int(match[1]) + 1 for match in found if match), default=0)
    return [
        L - int(match[1])
        if match
        else (L + 1 if name.split("/")[0] == "encoder" else 0)
        for name, match in zip(names, found, strict=True)
    ]


def decays(params: Any) -> Any:
    """True for each leaf that weight decay touches: all but biases and norms."""

    def one(path: Any, _: Any) -> bool:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return name.rsplit("/", 1)[-1] not in _NO_DECAY

    return jax.tree_util.tree_map_with_path(one, params)
