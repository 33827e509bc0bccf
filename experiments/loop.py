# SPDX-License-Identifier: Apache-2.0
"""The steps of a training: what happens at each, and what is done every so many."""

import dataclasses
import math
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from experiments.config import Config
from experiments.exits import Interrupted, Stop
from experiments.progress import Progress
from fulcra_jax.data import feed
from fulcra_jax.training import checkpoint, hosts, sharding, step
from fulcra_jax.training.meter import Meter, memory_mib
from fulcra_jax.training.profile import Trace
from fulcra_jax.training.writers import Writers

Figures = dict[str, float]


@dataclasses.dataclass
class Loop:
    """All that the steps of a run touch."""

    config: Config
    run: pathlib.Path
    steps: int
    """In all."""
    train_step: Callable[..., tuple[step.TrainState, tuple[step.Metrics, jax.Array]]]
    """(state, batch, hands) -> (state, (metrics, is any hand up))."""
    feed: feed.Feed
    mesh: jax.sharding.Mesh
    saved: checkpoint.Checkpoints
    look: Callable[[step.TrainState], Figures]
    """Figures of a state on dev; every process takes part."""
    schedule: Callable[[int], Any]
    writers: Writers
    meter: Meter
    flops: Callable[[int], float]
    """Of a training step on rows of this length."""
    names: list[str]
    """Of the leaves of the parameters."""
    stop: Stop
    trace: Trace
    _seen: set[tuple[int, ...]] = dataclasses.field(default_factory=set)
    """Shapes of batches that the step is compiled for."""
    _due: int = -1
    """The step at which the newest checkpoint should be whole."""

    def run_from(self, state: step.TrainState) -> tuple[step.TrainState, Figures]:
        """Steps to the end; saves, looks at dev and stops when asked to.

        Returns:
          The last state and its figures on dev.

        Raises:
          Interrupted: if a signal came to any process; the state is saved.
          FloatingPointError: if a loss or a gradient is not finite.
        """
        config, begun = self.config, int(state.step)
        vote = hosts.Vote(self.mesh)
        late: tuple[int, step.Metrics, jax.Array] | None = None
        figures: Figures = {}
        with Progress(begun, self.steps, self.meter) as progress, self.trace:
            if begun < self.steps:
                progress.say("compiling the first step ...")
            for number, batch in self._batches(begun):
                self.trace.step(number, state)
                placed = sharding.place_batch(batch, config.batch_size, self.mesh)
                state, told = self.train_step(
                    state, placed, vote.hands(self.stop.asked)
                )
                self._count(batch)
                # One step late: the device computes this step while the last is read.
                wish = late is not None and self._settle(late, progress)
                # Alone there is nobody to agree with, and a step may take minutes.
                wish |= self.stop.asked and jax.process_count() == 1
                done, late = number + 1, (number + 1, *told)
                if wish and done < self.steps:
                    self._settle(late, progress)
                    self._leave(done, state)
                wish = False
                looks = done == self.steps or _every(config.eval_every, done)
                saves = looks and bool(config.keep_best)
                saves |= done == self.steps or _every(config.save_period, done)
                if looks or saves:
                    # Nothing is judged or saved before its own step is known good.
                    wish = self._settle(late, progress)
                    late = None
                if looks:
                    figures = self._look(done, state, progress)
                if saves:
                    judged = figures if looks and config.keep_best else None
                    self.saved.save(done, state, judged)
                    self._due = done + config.save_every - config.save_period
                if done == self._due:
                    self.saved.wait()
                if wish and done < self.steps:
                    self._leave(done, state)
        self.saved.wait()
        return state, figures

    def _batches(self, begun: int) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        """This process's rows of each batch; the time it takes counts as waiting."""
        # Closed at the end whatever happens, or its threads would stay.
        batches = self.feed.iterate(begun, self.steps)
        try:
            while True:
                with self.meter.waiting():
                    found = next(batches, None)
                if found is None:
                    return
                yield found
        finally:
            batches.close()

    def _count(self, batch: Mapping[str, np.ndarray]) -> None:
        """Tells the meter of a batch; what other processes hold is about as much."""
        mask = batch["mask"]
        times = self.config.batch_size / len(mask)
        # Texts of a packed row are numbered from 1.
        packed = "segment_ids" in batch
        texts = batch["segment_ids"].max(1).sum() if packed else len(mask)
        self.meter.count(
            examples=round(int(texts) * times),
            tokens=round(int(mask.sum()) * times),
            places=round(mask.size * times),
            flops=self.flops(mask.shape[1]),
            compiled=mask.shape not in self._seen,
        )
        self._seen.add(mask.shape)

    def _settle(
        self, late: tuple[int, step.Metrics, jax.Array], progress: Progress
    ) -> bool:
        """Reads the metrics of a step: refuses NaN, shows, logs; True to stop."""
        number, metrics, wish = late
        loss, bad = float(metrics.loss), np.asarray(metrics.bad)
        if not math.isfinite(loss) or bad[1]:
            raise FloatingPointError(self._not_finite(number, loss, bad))
        progress.show(number, loss)
        if number % self.config.log_every == 0 or number == self.steps:
            self.writers.write(
                number,
                "train",
                {
                    "loss": loss,
                    "grad_norm": float(metrics.grad_norm),
                    "learning_rate": float(self.schedule(number - 1)),
                    **self.meter.rates(),
                    **memory_mib(),
                },
            )
        return bool(wish)

    def _not_finite(self, number: int, loss: float, bad: np.ndarray) -> str:
        """The sentence that ends a run whose numbers are none."""
        text = f"train: the loss is {loss} at step {number}; "
        if bad[1]:
            text += f"the gradient is not finite in {bad[1]} of {len(self.names)} "
            text += f"leaves, the first is {self.names[bad[0]]}; "
        self.saved.wait()
        kept = self.saved.latest_step()
        if kept is not None:
            text += f"the last good checkpoint, of step {kept}, remains in {self.run}; "
        return text + "try a lower --optimizer.peak-lr or --optimizer.clip-norm 1."

    def _look(self, done: int, state: step.TrainState, progress: Progress) -> Figures:
        if done == self.steps:
            progress.say("judging the dev rows ...")
        with self.meter.paused():
            figures = self.look(state)
        self.writers.write(done, "dev", figures)
        if done < self.steps:
            progress.say(f"step {done}: dev macro-F1 {figures['macro_f1']:.3f}")
        return figures

    def _leave(self, done: int, state: step.TrainState) -> None:
        """Saves and stops."""
        self.saved.save(done, state)
        self.saved.wait()
        raise Interrupted(
            f"stopped at step {done} of {self.steps}; resume with: python -m "
            f"experiments.train --resume {self.run}",
            # A scheduler that takes the machine away asks for a clean end.
            code=130 if self.stop.by == "SIGINT" else 0,
        )


def _every(interval: int, done: int) -> bool:
    return interval > 0 and done % interval == 0
