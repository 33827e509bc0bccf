# SPDX-License-Identifier: Apache-2.0
"""Parameters that are not trained, chosen by their path.

Where one would have a gradient, a moment or an average there is `optax.MaskedNode`, as
`optax.masked` has it: a node without leaves, which takes no memory.
"""

import re
from typing import Any

import jax
import optax

_LISTED = 6
"""Paths that a message names."""


def frozen(params: Any, pattern: str) -> Any:
    """Which leaves a pattern freezes.

    Args:
      params: a tree of parameters or of their shapes.
      pattern: a regular expression for whole paths, as
        "encoder/(embeddings|layer_[0-2])/.*"; empty freezes nothing.

    Returns:
      The tree with a bool for each leaf.

    Raises:
      ValueError: if the pattern is no regular expression, or matches no path, or all.

    >>> frozen({"encoder": {"word": 1}, "head": 2}, "encoder/.*")
    {'encoder': {'word': True}, 'head': False}
    """
    marked = matches(params, pattern)
    if not pattern:
        return marked
    found = jax.tree.leaves(marked)
    if not any(found) or all(found):
        paths = [_name(path) for path, _ in jax.tree.leaves_with_path(params)]
        which = "every path" if any(found) else "no path"
        raise ValueError(
            f"freeze.frozen: freeze is {pattern!r}, which matches {which} of the "
            f"{len(paths)} parameters; it should match some whole paths, as "
            f"{', '.join(paths[:: max(1, len(paths) // _LISTED)][:_LISTED])}."
        )
    return marked


def matches(tree: Any, pattern: str) -> Any:
    """`frozen` of a part of the parameters: nothing or all may match."""
    try:
        wanted = re.compile(pattern)
    except re.error as error:
        raise ValueError(
            f"freeze.frozen: freeze is {pattern!r}, which is no regular expression "
            f"({error})."
        ) from None
    return jax.tree_util.tree_map_with_path(
        lambda path, _: bool(pattern and wanted.fullmatch(_name(path))), tree
    )


def trained(params: Any, pattern: str) -> Any:
    """The tree without its frozen leaves: `optax.MaskedNode` in their place.

    Raises:
      ValueError: as `frozen`.

    >>> trained({"encoder": 1, "head": 2}, "encoder")
    {'encoder': MaskedNode(), 'head': 2}
    """
    return jax.tree.map(
        lambda out, leaf: optax.MaskedNode() if out else leaf,
        frozen(params, pattern),
        params,
    )


def joined(part: Any, params: Any) -> Any:
    """The whole tree again: leaves of `part`, and those of params where it has none.

    Args:
      part: from `trained`, or of its structure.
      params: the whole tree.

    >>> joined({"encoder": optax.MaskedNode(), "head": 3}, {"encoder": 1, "head": 2})
    {'encoder': 1, 'head': 3}
    """
    return jax.tree.map(
        lambda own, leaf: leaf if _absent(own) else own, part, params, is_leaf=_absent
    )


def apart(
    made: optax.GradientTransformation, pattern: str
) -> optax.GradientTransformation:
    """A transformation that leaves frozen parameters alone and keeps nothing of them.

    Args:
      made: moves the others; it never sees the frozen ones.
      pattern: as of `frozen`; its `init` checks it.
    """
    parts = optax.partition(
        {"trained": made, "frozen": optax.set_to_zero()},
        lambda tree: jax.tree.map(
            lambda out: "frozen" if out else "trained", matches(tree, pattern)
        ),
    )

    def init(params: Any) -> optax.OptState:
        frozen(params, pattern)
        return parts.init(params)

    return optax.GradientTransformation(init, parts.update)


def _absent(node: Any) -> bool:
    return isinstance(node, optax.MaskedNode)


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
