# SPDX-License-Identifier: Apache-2.0
"""Low-rank adapters on kernels that are named by their path; no module knows of them.

A kernel is used as kernel + (alpha / r) a b. A training step merges before it applies
the model; what is saved at the end is merged, and a model like any other.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

PATTERN = r"(.*/)?layer_\d+/attention/(query|value)/kernel"
"""The queries and values of every layer, of all families here."""

_FACTORS = frozenset("ab")
_LISTED = 6
"""Paths that a message names."""


def init_lora(
    key: jax.Array, params: Any, *, rank: int, pattern: str = PATTERN
) -> dict[str, Any]:
    """Adapters that change nothing yet, for the kernels whose path matches.

    a ~ U(-1 / sqrt(in), 1 / sqrt(in)), b = 0

    The LoRA option of the released code of Value FULCRA names modules that DeBERTa does
    not have and adapts nothing, in silence; here a pattern without a match is an error.

    Args:
      key: a PRNG key.
      params: a tree of nested dictionaries, of an encoder or an evaluator; its arrays
        may be `jax.ShapeDtypeStruct`s.
      rank: r, at least 1.
      pattern: a regular expression for whole paths, as
        "encoder/layer_0/attention/query/kernel".

    Returns:
      The tree of params without what does not match, where every kernel `[in, out]` is
      a dictionary of `a` `[in, r]` and `b` `[r, out]`, of the kernel's dtype.

    Raises:
      ValueError: if rank is less than 1, the pattern is none, matches no path, or one
        whose array has not two axes.

    Reference:
      Hu et al. 2022, "LoRA: Low-Rank Adaptation of Large Language Models" (arXiv
      2106.09685), section 4.1.

    >>> params = {"layer_0": {"attention": {"query": {"kernel": jnp.ones((4, 6))}}}}
    >>> lora = init_lora(jax.random.key(0), params, rank=2)
    >>> jax.tree.map(jnp.shape, lora)["layer_0"]["attention"]["query"]["kernel"]
    {'a': (4, 2), 'b': (2, 6)}
    """
    if rank < 1:
        raise ValueError(f"lora.init_lora: rank is {rank}; it should be at least 1.")
    try:
        wanted = re.compile(pattern)
    except re.error as error:
        raise ValueError(
            f"lora.init_lora: pattern {pattern!r} is no regular expression ({error})."
        ) from None
    leaves = dict(_leaves(params))
    chosen = [path for path in leaves if wanted.fullmatch("/".join(path))]
    if not chosen:
        paths = ["/".join(path) for path in leaves]
        kernels = [path for path in paths if path.endswith("kernel")] or paths
        raise ValueError(
            f"lora.init_lora: pattern {pattern!r} matches no path of the parameters; "
            f"some are {', '.join(kernels[:_LISTED])}."
        )
    lora: dict[str, Any] = {}
    for number, path in enumerate(chosen):
        kernel = leaves[path]
        if len(kernel.shape) != 2:
            raise ValueError(
                f"lora.init_lora: pattern {pattern!r} matches {'/'.join(path)} of "
                f"shape {tuple(kernel.shape)}; what is adapted should have two axes."
            )
        inputs, outputs = kernel.shape
        span, dtype = inputs**-0.5, kernel.dtype
        draw = jax.random.fold_in(key, number)
        branch = lora
        for name in path:
            branch = branch.setdefault(name, {})
        branch["a"] = jax.random.uniform(draw, (inputs, rank), dtype, -span, span)
        branch["b"] = jnp.zeros((rank, outputs), dtype)
    return lora


def merge_lora(params: Any, lora: Mapping[str, Any], *, alpha: float) -> Any:
    """The parameters with every adapted kernel + (alpha / r) a b.

    Args:
      params: the tree that `lora` was made for.
      lora: from `init_lora`, before or after training.
      alpha: the scale; r, the rank, is read off the adapters.

    Returns:
      The tree of params with the same shapes and dtypes; leaves without an adapter are
      the same arrays.

    Raises:
      ValueError: if an adapter's kernel is missing in params, or of another shape.

    Reference:
      Hu et al. 2022 (arXiv 2106.09685), equation 3.

    >>> params = {"kernel": jnp.zeros((1, 2)), "bias": jnp.zeros(2)}
    >>> lora = {"kernel": {"a": jnp.ones((1, 1)), "b": jnp.array([[1.0, 2.0]])}}
    >>> merge_lora(params, lora, alpha=3.0)["kernel"].tolist()
    [[3.0, 6.0]]
    """
    return _merged(params, lora, alpha, ())


def _merged(params: Any, lora: Any, alpha: float, path: tuple[str, ...]) -> Any:
    if set(lora) == _FACTORS and not isinstance(params, Mapping):
        return _added(params, lora["a"], lora["b"], alpha, "/".join(path))
    if not isinstance(params, Mapping):
        raise ValueError(
            f"lora.merge_lora: {'/'.join(path) or 'params'} is an array, but lora has "
            f"{', '.join(map(str, lora))} there; it should be of these parameters."
        )
    merged = dict(params)
    for name, branch in lora.items():
        if name not in params:
            raise ValueError(
                f"lora.merge_lora: lora has {'/'.join((*path, name))}, but params have "
                "no such path; they should be those that it was made for."
            )
        merged[name] = _merged(params[name], branch, alpha, (*path, name))
    return merged


def _added(kernel: Any, a: Any, b: Any, alpha: float, name: str) -> jax.Array:
    rank = a.shape[-1]
    if (*a.shape[:1], *b.shape) != (kernel.shape[0], rank, *kernel.shape[1:]):
        raise ValueError(
            f"lora.merge_lora: {name} has shape {tuple(kernel.shape)}, but lora has a "
            f"{tuple(a.shape)} and b {tuple(b.shape)} there; their product should be "
            "of that shape."
        )
    low = jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
    return (kernel + (alpha / rank) * low).astype(kernel.dtype)


def _leaves(
    tree: Any, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Paths and leaves of nested dictionaries, by name."""
    for name in sorted(tree):
        if isinstance(tree[name], Mapping):
            yield from _leaves(tree[name], (*path, name))
        else:
            yield (*path, name), tree[name]
