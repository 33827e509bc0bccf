# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of a training state, by orbax.

A checkpoint becomes visible only when it is whole: orbax writes into a folder of its
own and renames it, so a killed process leaves the one before. What is damaged later is
found by a fingerprint of every leaf, set aside, and the one before is used.
"""

import errno
import math
import pathlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers

from fulcra_jax.training import damage, record

_STATE, _RECORD = "state", "record"
_OLD = "default"
"""The folder of a state without a record, as it was written up to version 0.1."""


class Checkpoints:
    """The checkpoints of one run; use as a context manager, one at a time per folder.

    With several processes all of them make the same calls, on one shared folder.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> with Checkpoints(folder.name) as saved:
    ...     saved.save(1, {"a": jnp.arange(3)})
    >>> with Checkpoints(folder.name) as saved:
    ...     print(saved.restore({"a": jax.ShapeDtypeStruct((3,), jnp.int32)}))
    {'a': Array([0, 1, 2], dtype=int32)}
    >>> folder.cleanup()
    """

    def __init__(
        self,
        folder: str | pathlib.Path,
        *,
        keep: int = 2,
        best: str = "",
        read_only: bool = False,
    ) -> None:
        """Opens the folder and removes, in the background, what is half-written there.

        Args:
          folder: created when missing.
          keep: how many of the newest checkpoints to keep.
          best: a metric, higher is better; the checkpoint with the best is kept too.
          read_only: changes nothing in the folder, into which another process may be
            writing.

        Raises:
          ValueError: if keep is less than 1.
        """
        if keep < 1:
            raise ValueError(
                f"checkpoint.Checkpoints: keep is {keep}; it should be at least 1."
            )
        self._folder = pathlib.Path(folder).resolve()
        self._best, self._read_only = best, read_only
        self._quality: dict[int, float] = {}
        self._pending: int | None = None
        self._quiet = damage.quiet()
        self._reader = ocp.StandardCheckpointHandler()
        self._manager = ocp.CheckpointManager(
            self._folder,
            options=ocp.CheckpointManagerOptions(
                create=not read_only,
                cleanup_tmp_directories=not read_only,
                preservation_policy=checkpoint_managers.AnyPreservationPolicy(
                    [checkpoint_managers.LatestN(n=keep), _Only(self.best_step)]
                ),
                # Else a damaged checkpoint keeps the whole folder from being opened.
                lightweight_initialize=True,
            ),
            item_handlers={
                _STATE: ocp.StandardCheckpointHandler(),
                _RECORD: ocp.JsonCheckpointHandler(f"{_RECORD}.json"),
            },
        )
        if best:
            for step in self._manager.all_steps():
                try:
                    metrics = (self._noted(step) or {}).get("metrics") or {}
                except damage.DAMAGE:
                    continue
                if best in metrics:
                    self._quality[step] = metrics[best]

    def __enter__(self) -> "Checkpoints":
        self._quiet.__enter__()
        return self

    def __exit__(self, kind: Any, raised: BaseException | None, _: Any) -> None:
        try:
            self.wait()
        except OSError as error:
            if raised is None:
                raise
            raised.add_note(str(error))
        finally:
            try:
                self._manager.close()
            finally:
                self._quiet.__exit__(None, None, None)

    def latest_step(self) -> int | None:
        """Step of the newest checkpoint, or None; one being written counts."""
        return self._manager.latest_step()

    def best_step(self) -> int | None:
        """Step of the checkpoint with the highest `best` metric, or None.

        Of equals the newest. A checkpoint saved without metrics, or with NaN, is none.
        """
        known = [
            (self._quality[step], step)
            for step in self._manager.all_steps()
            if not math.isnan(self._quality.get(step, math.nan))
        ]
        return max(known)[1] if known else None

    def save(
        self, step: int, state: Any, metrics: Mapping[str, float] | None = None
    ) -> None:
        """Starts to write the state in the background; at most once per step.

        Waits for the save before. The state may be donated as soon as this returns.

        Args:
          step: how many steps were done.
          state: a tree of arrays.
          metrics: figures of this state; needed for `best` only.

        Raises:
          ValueError: if a newer checkpoint exists, or metrics lack `best`.
          OSError: if the save before failed, or this one could not begin.
        """
        if metrics is not None and self._best and self._best not in metrics:
            raise ValueError(
                f"checkpoint.save: metrics has {', '.join(metrics) or 'nothing'}; it "
                f"should have {self._best}, by which the best is kept."
            )
        self.wait()
        latest = self.latest_step()
        if step == latest:
            return
        if latest is not None and step < latest:
            raise ValueError(
                f"checkpoint.save: step is {step}; it should be greater than {latest}, "
                f"the newest in {self._folder}."
            )
        state = jax.tree.map(jnp.asarray, state)
        self._quality.pop(step, None)
        if metrics is not None:
            metrics = {name: float(number) for name, number in metrics.items()}
            self._quality[step] = metrics.get(self._best, math.nan)
        noted = record.write(state, metrics)
        try:
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    **{
                        _STATE: ocp.args.StandardSave(_solid(state)),
                        _RECORD: ocp.args.JsonSave(noted),
                    }
                ),
                force=True,
            )
        except Exception as error:  # tensorstore says a full disk in a ValueError
            if not (isinstance(error, OSError) or _is_full(error)):
                raise
            raise self._failed(step, error) from error
        self._pending = step

    def wait(self) -> None:
        """Returns when everything that was saved is on disk.

        Raises:
          OSError: if it could not be written; the checkpoint before remains.
        """
        step, self._pending = self._pending, None
        try:
            self._manager.wait_until_finished()
        except Exception as error:  # of the thread that wrote, whatever it met
            raise self._failed(step, error) from error

    def _failed(self, step: int | None, error: Exception) -> OSError:
        self._manager.reload()
        last = self.latest_step()
        full = _is_full(error)
        reason = "the disk is full" if full else damage.line(error)
        remains = "no checkpoint" if last is None else f"checkpoint {last}"
        then = "free space and resume" if full else "resume when that is mended"
        return OSError(
            f"checkpoint: step {step} could not be written to {self._folder} "
            f"({reason}); {remains} remains, {then}."
        )

    def restore(self, like: Any, *, step: int | None = None) -> Any:
        """The newest readable state, placed as `like` says.

        Newer ones that are damaged are renamed to `damaged-STEP` (not when read only),
        each with a warning, when there is a readable one before them. Checkpoints of
        version 0.1 have no fingerprints: of those, only what cannot be read is found.

        Args:
          like: the state's tree of `jax.ShapeDtypeStruct`s with shardings: of any mesh
            and any number of processes.
          step: this checkpoint and no other.

        Raises:
          FileNotFoundError: if there is no checkpoint, or not that of `step`.
          ValueError: if the checkpoint is of another architecture; it names the first
            leaf that differs, with both shapes and dtypes. Or if all are damaged.
        """
        self.wait()
        like = jax.tree.map(_described, like)
        steps = sorted(self._manager.all_steps(), reverse=True)
        if not steps:
            raise FileNotFoundError(
                f"checkpoint: {self._folder} holds no whole checkpoint."
            )
        if step is not None and step not in steps:
            raise FileNotFoundError(
                f"checkpoint: {self._folder} holds no step {step}; it has "
                f"{', '.join(map(str, sorted(steps)))}."
            )
        damaged: dict[int, str] = {}
        for number in steps if step is None else [step]:
            state, reason = self._read(number, like)
            if not reason:
                self._set_aside(damaged, number)
                return state
            damaged[number] = reason
        raise ValueError(self._unreadable(damaged, step))

    def newest(self, state: Any) -> Any:
        """The newest state on one device, or the one given where none was saved.

        Raises:
          ValueError: as `restore`.
        """
        if self.latest_step() is None:
            return state
        place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        like = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
            state,
        )
        return self.restore(like)

    def _read(self, step: int, like: Any) -> tuple[Any, str]:
        """The state, or why it is damaged; the same answer on every process."""
        found, reason = damage.attempt(lambda: self._load(step, like))
        if reason:
            return None, reason
        state, leaves = found
        if leaves is not None:
            reason = damage.attempt(lambda: record.check_bits(state, leaves))[1]
        return (None, reason) if reason else (state, "")

    def _load(self, step: int, like: Any) -> tuple[Any, Mapping[str, Any] | None]:
        # Not by the manager: it holds a barrier in which the other processes would
        # wait for one that could not read its part.
        noted = self._noted(step)
        if noted is None:
            place, leaves = self._manager.directory / str(step) / _OLD, None
            held = record.kinds(self._reader.metadata(place).tree)
        else:
            place = self._manager.directory / str(step) / _STATE
            leaves = noted["leaves"]
            held = {name: kind for name, (kind, _) in leaves.items()}
        where = f"step {step} in {self._folder}"
        record.check_kinds(record.kinds(like), held, where)
        found = self._reader.restore(place, args=ocp.args.StandardRestore(_solid(like)))
        return jax.tree.map(_filled, like, found), leaves

    def _noted(self, step: int) -> dict[str, Any] | None:
        """The record of a step; None in a checkpoint of version 0.1."""
        folder = self._folder / str(step)
        if (folder / _OLD).is_dir():
            return None
        return record.read((folder / _RECORD / f"{_RECORD}.json").read_bytes())

    def _unreadable(self, damaged: Mapping[int, str], asked: int | None) -> str:
        step, *others = damaged
        said = (
            f"checkpoint: step {step} in {self._folder} cannot be read "
            f"({damaged[step]})"
        )
        if asked is not None:
            return f"{said}; ask for another step."
        if others:
            said += f", and neither can {', '.join(map(str, others))} before it"
        else:
            said += ", and there is no other"
        return f"{said}; put a copy in its place, or delete that folder to begin anew."

    def _set_aside(self, damaged: Mapping[int, str], used: int) -> None:
        if not damaged:
            return
        said = []
        if jax.process_index() == 0:
            for step, reason in sorted(damaged.items()):
                text = (
                    f"checkpoint: step {step} in {self._folder} is damaged ({reason}); "
                )
                if not self._read_only:
                    aside = _free(self._folder / f"damaged-{step}")
                    (self._folder / str(step)).rename(aside)
                    text += f"it is now called {aside.name}, and "
                said.append(f"{text}step {used} is used.")
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("damaged checkpoints are set aside")
        self._manager.reload()
        for sentence in said:
            warnings.warn(sentence, stacklevel=3)


class _Only(checkpoint_managers.PreservationPolicy):
    """Keeps the step that a function names, or none."""

    def __init__(self, step: Callable[[], int | None]) -> None:
        self._step = step

    def should_preserve(
        self, checkpoints: Sequence[Any], *, context: Any
    ) -> Sequence[bool]:
        step = self._step()
        return [info.step == step for info in checkpoints]


def _described(leaf: Any) -> jax.ShapeDtypeStruct:
    place = leaf.sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)


def _solid(tree: Any) -> Any:
    """The tree with None for leaves of size zero, which orbax refuses."""
    return jax.tree.map(lambda leaf: leaf if math.prod(leaf.shape) else None, tree)


def _filled(want: jax.ShapeDtypeStruct, leaf: jax.Array | None) -> jax.Array:
    if leaf is not None:
        return leaf
    return jax.make_array_from_callback(
        want.shape, want.sharding, lambda at: np.zeros(want.shape, want.dtype)[at]
    )


def _free(path: pathlib.Path) -> pathlib.Path:
    """The path, with a number behind it where it is taken."""
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free


def _is_full(error: BaseException) -> bool:
    number = error.errno if isinstance(error, OSError) else None
    return number in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error)
