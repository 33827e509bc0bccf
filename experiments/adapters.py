# SPDX-License-Identifier: Apache-2.0
"""Low-rank adapters in a training: what is trained, and what is judged and exported.

The state's parameters have the entry "lora" beside "encoder" and "head"; the encoder is
frozen. Whatever applies the evaluator asks for `merged` ones.
"""

import dataclasses
import math
import re
from typing import TYPE_CHECKING, Any

import jax

from fulcra_jax.models import lora
from fulcra_jax.training import freeze
from fulcra_jax.training.optimizer import Optimizer

if TYPE_CHECKING:
    from experiments.config import Config

_ENCODER = "encoder/.*"


@dataclasses.dataclass(frozen=True)
class Adapter:
    """LoRA on the encoder; the head is trained as ever."""

    rank: int = 0
    """Rank of the adapters; 0 trains the encoder itself."""
    alpha: float = 16.0
    """The change of a kernel is scaled by alpha / rank."""
    pattern: str = lora.PATTERN
    """Kernels that are adapted: a regular expression for whole paths, as
    "encoder/layer_0/attention/query/kernel"."""

    def __post_init__(self) -> None:
        if not 0 <= self.rank <= 65536:
            raise ValueError(
                f"adapters.Adapter: rank is {self.rank}; it should be in [0, 65536]."
            )
        if not 0.0 < self.alpha < math.inf:
            raise ValueError(
                f"adapters.Adapter: alpha is {self.alpha}; it should be a number above "
                "0."
            )
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ValueError(
                f"adapters.Adapter: pattern is {self.pattern!r}, which is no regular "
                f"expression ({error})."
            ) from None


def optimizer_of(config: "Config") -> Optimizer:
    """The run's optimizer; with adapters it leaves the encoder alone."""
    if not config.adapter.rank:
        return config.optimizer
    held = config.optimizer.freeze
    return dataclasses.replace(
        config.optimizer, freeze=f"(?:{held})|{_ENCODER}" if held else _ENCODER
    )


def with_lora(config: "Config", params: Any) -> Any:
    """An evaluator's parameters, with adapters that change nothing yet if asked for.

    Raises:
      ValueError: if the adapter's pattern matches no kernel of the encoder.
    """
    if not config.adapter.rank:
        return params
    made = lora.init_lora(
        jax.random.fold_in(jax.random.key(config.seed), 1),
        {"encoder": params["encoder"]},
        rank=config.adapter.rank,
        pattern=config.adapter.pattern,
    )
    return params | {"lora": made}


def merged(config: "Config", params: Any) -> Any:
    """The parameters of a plain evaluator."""
    if not config.adapter.rank:
        return params
    plain = {name: tree for name, tree in params.items() if name != "lora"}
    return lora.merge_lora(plain, params["lora"], alpha=config.adapter.alpha)


def trained_size(config: "Config", params: Any) -> tuple[int, int]:
    """How many of the parameters are trained, and how many there are."""
    part = freeze.trained(params, optimizer_of(config).freeze)
    size = lambda tree: sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
    return size(part), size(params)
