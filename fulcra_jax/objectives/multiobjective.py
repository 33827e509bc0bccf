# SPDX-License-Identifier: Apache-2.0
"""Ten values at once: from a vector of rewards to one number, and constraints.

Axes: `...` responses, V values.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from fulcra_jax import _check
from fulcra_jax.objectives import _shapes


def target_weights(target: jax.Array) -> jax.Array:
    """How much each value of a target matters, if its size says so.

    |t_k| / sum_j |t_j|

    Args:
      target: `[..., V]` float.

    Returns:
      `[..., V]` float on the simplex; even for a target of zeros.

    Raises:
      ValueError: if `target` is no array.

    Reference:
      The weights of the released reward, Yao et al. 2024 (arXiv 2311.10766).

    >>> target_weights(jnp.array([1.0, 0.0, -1.0, 0.0])).tolist()
    [0.5, 0.0, 0.5, 0.0]
    """
    _check.shapes("multiobjective.target_weights", target=(target, "... V"))
    size = jnp.abs(target.astype(jnp.promote_types(target.dtype, jnp.float32)))
    total = size.sum(-1, keepdims=True)
    some = total > 0.0
    return jnp.where(some, size / jnp.where(some, total, 1.0), 1.0 / size.shape[-1])


def scalarize(rewards: jax.Array, weights: jax.Array) -> jax.Array:
    """The weighted sum of the rewards of the values.

    sum_k w_k R_k

    Args:
      rewards: `[..., V]` float, for example of `reward_per_value`.
      weights: `[V]` or `[..., V]` float, for example of `target_weights`.

    Returns:
      `[...]` float.

    Raises:
      ValueError: if shapes disagree.

    Reference:
      Roijers et al. 2013, "A survey of multi-objective sequential decision-making".

    >>> scalarize(jnp.array([-1.0, 0.0]), jnp.array([0.25, 0.75])).item()
    -0.25
    """
    _shapes.score_and_target("multiobjective.scalarize", rewards, weights, None, None)
    rewards, weights, _ = _shapes.prepared(rewards, weights, None)
    return (rewards * weights).sum(-1)


def direction_reward(score: jax.Array, target: jax.Array) -> jax.Array:
    """How far an answer goes in the direction of the target, however far that is.

    <v, t> / |t|

    Args:
      score: `[..., V]` float in [-1, 1].
      target: `[V]` or `[..., V]` float.

    Returns:
      `[...]` float; 0 for a target of zeros. Has no best answer inside the cube: it
      rewards going beyond a graded target.

    Raises:
      ValueError: if shapes disagree.

    Reference:
      Wang et al. 2024 (arXiv 2402.18571), directional preference alignment.

    >>> print(direction_reward(jnp.array([0.6, 0.8]), jnp.array([3.0, 4.0])))
    1.0
    """
    _shapes.score_and_target(
        "multiobjective.direction_reward", score, target, None, None
    )
    score, target, _ = _shapes.prepared(score, target, None)
    square = (target**2).sum(-1)
    some = square > 0.0
    length = jnp.sqrt(jnp.where(some, square, 1.0))
    return jnp.where(some, (score * target).sum(-1) / length, 0.0)


def chebyshev_reward(
    score: jax.Array,
    target: jax.Array,
    *,
    weights: jax.Array | None = None,
    augmentation: float = 0.0,
    sharpness: float | None = None,
) -> jax.Array:
    """The reward of the value that is farthest from its target.

    -max_k w_k |v_k - t_k| - augmentation sum_k w_k |v_k - t_k|; with `sharpness` a the
    maximum is log sum_k exp(a w_k |v_k - t_k|) / a, which exceeds it by at most
    log V / a and pulls at all values.

    A weighted sum never finds a compromise that lies in a dent of the Pareto front;
    this does.

    Args:
      score: `[..., V]` float in [-1, 1].
      target: `[V]` or `[..., V]` float.
      weights: `[V]` non-negative float, 1 if not given.
      augmentation: small and at least 0: among answers with the same worst value it
        prefers the one that is better in the others.
      sharpness: above 0; None takes the maximum itself.

    Returns:
      `[...]` float <= 0.

    Raises:
      ValueError: if shapes disagree or a number is out of range.

    Reference:
      Steuer and Choo 1983; Lin et al. 2024 (arXiv 2402.19078), the smooth form.

    >>> chebyshev_reward(jnp.array([1.0, 0.25]), jnp.array([1.0, 1.0])).item()
    -0.75
    """
    caller = "multiobjective.chebyshev_reward"
    if not augmentation >= 0.0:
        raise ValueError(
            f"{caller}: augmentation is {augmentation}; expected at least 0."
        )
    if sharpness is not None and not sharpness > 0.0:
        raise ValueError(f"{caller}: sharpness is {sharpness}; expected more than 0.")
    _shapes.score_and_target(caller, score, target, weights, None)
    score, target, _ = _shapes.prepared(score, target, None)
    gap = jnp.abs(score - target)
    if weights is not None:
        gap = gap * jnp.broadcast_to(weights.astype(gap.dtype), gap.shape)
    if sharpness is None:
        worst = gap.max(-1)
    else:
        worst = jax.nn.logsumexp(sharpness * gap, axis=-1) / sharpness
    return -worst - augmentation * gap.sum(-1)


def lagrangian_reward(
    reward: jax.Array, costs: jax.Array, multipliers: jax.Array, limits: jax.Array
) -> jax.Array:
    """A reward under constraints: a main goal, and costs that should stay below limits.

    (r - sum_k lambda_k (c_k - limit_k)) / (1 + sum_k lambda_k)

    For example: be helpful, and keep the distance of every value below its limit.
    Dividing keeps the size of the steps as the multipliers grow.

    Args:
      reward: `[...]` float, the main goal.
      costs: `[..., V]` float, for example `value_gaps`.
      multipliers: `[V]` non-negative float, of `dual_step`; no gradient flows through
        them.
      limits: `[V]` float.

    Returns:
      `[...]` float.

    Raises:
      ValueError: if shapes disagree.

    Reference:
      Dai et al. 2024 (arXiv 2310.12773), Safe RLHF, equation 10.

    >>> costs, one = jnp.array([0.5]), jnp.array([1.0])
    >>> lagrangian_reward(jnp.array(1.0), costs, one, jnp.array([0.25])).item()
    0.375
    """
    caller = "multiobjective.lagrangian_reward"
    _check.shapes(
        caller,
        costs=(costs, "... V"),
        multipliers=(multipliers, "V"),
        limits=(limits, "V"),
    )
    if reward.shape != costs.shape[:-1]:
        raise ValueError(
            f"{caller}: reward has shape {reward.shape}; expected {costs.shape[:-1]}, "
            "the shape of costs without V."
        )
    fixed = jax.lax.stop_gradient(_work(multipliers))
    costs = _work(costs)
    above = costs - jnp.broadcast_to(_work(limits), costs.shape)
    excess = (above * jnp.broadcast_to(fixed, costs.shape)).sum(-1)
    return (_work(reward) - excess) / (1.0 + fixed.sum())


def dual_step(
    multipliers: jax.Array,
    costs: jax.Array,
    limits: jax.Array,
    *,
    step_size: float,
    where: jax.Array | None = None,
    axis_name: str | None = None,
) -> jax.Array:
    """The next multipliers: raised where the mean cost is above its limit.

    lambda' = max(0, lambda + step_size (mean c - limit))

    Args:
      multipliers: `[V]` non-negative float: the state, passed on from step to step.
      costs: `[B, V]` float of the answers of this step; no gradient flows through them.
      limits: `[V]` float.
      step_size: above 0.
      where: `[B]` bool, False where an answer does not count.
      axis_name: of `jax.vmap`, `jax.pmap` or `jax.shard_map`, if the batch is spread
        over devices.

    Returns:
      `[V]` non-negative float; unchanged if no answer counts.

    Raises:
      ValueError: if shapes disagree or `step_size` is not above 0.

    Reference:
      Dai et al. 2024 (arXiv 2310.12773), equation 31.

    >>> costs, limits = jnp.array([[0.5], [0.75]]), jnp.array([0.125])
    >>> dual_step(jnp.array([0.0]), costs, limits, step_size=1.0).tolist()
    [0.5]
    """
    caller = "multiobjective.dual_step"
    if not step_size > 0.0:
        raise ValueError(f"{caller}: step_size is {step_size}; expected more than 0.")
    _check.shapes(
        caller,
        multipliers=(multipliers, "V"),
        costs=(costs, "B V"),
        limits=(limits, "V"),
        where=(where, "B"),
    )
    costs = jax.lax.stop_gradient(_work(costs))
    present = jnp.ones(costs.shape[:1], bool)
    if where is not None:
        present = jnp.asarray(where, bool)
    total = jnp.where(present[:, None], costs, 0.0).sum(0)
    count = present.sum().astype(costs.dtype)
    if axis_name is not None:
        total, count = jax.lax.psum((total, count), axis_name)
    excess = total / jnp.maximum(count, 1.0) - _work(limits)
    step = jnp.where(count > 0.0, step_size * excess, 0.0)
    return jnp.maximum(_work(multipliers) + step, 0.0)


def min_norm_weights(gram: jax.Array, *, num_iterations: int = 200) -> jax.Array:
    """The weights of the shortest combination of gradients: no goal is made worse.

    min over the simplex of w' M w, M_ij = <g_i, g_j>, by Frank-Wolfe with exact steps.

    Args:
      gram: `[V, V]` float, the inner products of the goals' gradients.
      num_iterations: of Frank-Wolfe; the error falls as 1 / iterations.

    Returns:
      `[V]` float on the simplex. w' M w near 0 says that the point is Pareto
      stationary.

    Raises:
      ValueError: if `gram` is not square or `num_iterations` is below 1.

    Reference:
      Desideri 2012, MGDA; Sener and Koltun 2018 (arXiv 1810.04650), algorithm 2.

    >>> gradients = jnp.array([[1.0, 0.0], [0.0, 2.0]])
    >>> print(min_norm_weights(gradients @ gradients.T).round(3))
    [0.8 0.2]
    """
    caller = "multiobjective.min_norm_weights"
    size = _check.shapes(caller, gram=(gram, "V V"))["V"]
    if num_iterations < 1:
        raise ValueError(
            f"{caller}: num_iterations is {num_iterations}; expected at least 1."
        )
    gram = _work(gram)
    exact = jax.lax.Precision.HIGHEST

    def iteration(weight: jax.Array, _: None) -> tuple[jax.Array, None]:
        toward = jnp.matmul(gram, weight, precision=exact)
        best = jax.nn.one_hot(toward.argmin(), size, dtype=gram.dtype)
        # Away-steps would be faster; pairwise moves reach the face where others stop.
        active = jnp.where(weight > 0.0, toward, -jnp.inf)
        worst = jax.nn.one_hot(active.argmax(), size, dtype=gram.dtype)
        move = best - worst
        slope = (move * toward).sum()
        curve = (move * jnp.matmul(gram, move, precision=exact)).sum()
        length = -slope / jnp.where(curve > 0.0, curve, 1.0)
        most = (weight * worst).sum()
        length = jnp.where(curve > 0.0, jnp.clip(length, 0.0, most), 0.0)
        return weight + length * move, None

    start = jnp.full((size,), 1.0 / size, gram.dtype)
    weight, _ = jax.lax.scan(iteration, start, None, length=num_iterations)
    return weight


def rewarded_soup(parameters: Sequence[Any], weights: jax.Array) -> Any:
    """The weighted mean of parameter trees, each tuned for one goal.

    sum_k w_k theta_k

    Args:
      parameters: K trees of one structure and shapes, tuned from one start.
      weights: `[K]` float that sum to 1.

    Returns:
      A tree of that structure, float32 at least: cast it to what the model computes in.

    Raises:
      ValueError: if the trees differ or their number is not that of the weights.

    Reference:
      Rame et al. 2023 (arXiv 2306.04488).

    >>> rewarded_soup([{"w": jnp.array(0.0)}, {"w": jnp.array(4.0)}],
    ...               jnp.array([0.75, 0.25]))["w"].item()
    1.0
    """
    caller = "multiobjective.rewarded_soup"
    k = _check.shapes(caller, weights=(weights, "K"))["K"]
    if len(parameters) != k:
        raise ValueError(
            f"{caller}: there are {len(parameters)} trees and {k} weights; expected as "
            "many."
        )
    if len({jax.tree.structure(tree) for tree in parameters}) != 1:
        raise ValueError(f"{caller}: the trees differ; expected one structure.")
    return jax.tree.map(lambda *leaves: _mixture(caller, leaves, weights), *parameters)


def _mixture(
    caller: str, leaves: tuple[jax.Array, ...], weights: jax.Array
) -> jax.Array:
    shapes = sorted({tuple(leaf.shape) for leaf in leaves})
    if len(shapes) > 1:
        raise ValueError(f"{caller}: a leaf has the shapes {shapes}; expected one.")
    dtype = jnp.promote_types(jnp.result_type(*leaves), jnp.float32)
    return sum(
        (
            weights[k].astype(dtype) * leaf.astype(dtype)
            for k, leaf in enumerate(leaves)
        ),
        start=jnp.zeros(shapes[0], dtype),
    )


def _work(x: jax.Array) -> jax.Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
