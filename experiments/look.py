# SPDX-License-Identifier: Apache-2.0
"""How good a training state is on the dev split."""

from typing import Any

import jax
import jax.numpy as jnp

from experiments import prepare
from fulcra_jax.data import batches, source
from fulcra_jax.inference import Predictor
from fulcra_jax.report import evaluation, presence
from fulcra_jax.training import sharding, step


class Dev:
    """Looks at the dev split with any state, over all devices."""

    def __init__(
        self, data: prepare.Prepared, mesh: jax.sharding.Mesh, state: step.TrainState
    ) -> None:
        """Args: data: its dev rows. mesh: the devices. state: any, for its shapes."""
        config = data.config
        # As many rows as the devices can share.
        parts = sharding.row_parts(mesh)
        size = -(-32 // parts) * parts
        own = sharding.host_rows(size, mesh)

        def place(batch: batches.Batch) -> Any:
            mine = {name: array[own] for name, array in batch.items()}
            return sharding.place_batch(mine, size, mesh)

        self._examples = data.dev
        self._presence = isinstance(config.source, source.ValueEval)
        self._predictor = Predictor(
            config.evaluator, state.best_params, data.tokenizer,
            max_length=config.text.max_length, ladder=config.text.ladder,
            compute_dtype=jnp.dtype(config.compute_dtype), batch_size=size,
            place=place, everywhere=sharding.replicated(mesh),
        )  # fmt: skip

    def figures(self, state: step.TrainState) -> dict[str, float]:
        """A few figures, without intervals: those of `Config.figures`."""
        self._predictor.params = state.best_params
        answer = self._predictor.score_encoded(self._examples.encoded)
        labels, where = self._examples.labels, self._examples.where
        if self._presence:
            return presence.quick_figures(answer.classes() > 0, labels, where)
        return evaluation.quick_figures(answer.classes(), labels, where)
