# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of a training state, by orbax.

A checkpoint becomes visible only when it is whole: orbax writes into a folder of its
own and renames it, so a killed process leaves the one before.
"""

import pathlib
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp


class Checkpoints:
    """The checkpoints of one run, newest kept; use as a context manager."""

    def __init__(self, folder: str | pathlib.Path, *, keep: int = 2) -> None:
        """Args: folder: created when missing. keep: how many checkpoints to keep."""
        self._manager = ocp.CheckpointManager(
            pathlib.Path(folder).resolve(),
            options=ocp.CheckpointManagerOptions(max_to_keep=keep, create=True),
            # Named here, or the tree of a checkpoint cannot be read before restoring
            # it.
            item_handlers=ocp.StandardCheckpointHandler(),
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.close()

    def latest_step(self) -> int | None:
        """Step of the newest whole checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, step: int, state: Any) -> None:
        """Starts to write the state in the background; at most once per step."""
        if step != self._manager.latest_step():
            self._manager.save(step, args=ocp.args.StandardSave(state))

    def wait(self) -> None:
        """Returns when everything that was saved is on disk."""
        self._manager.wait_until_finished()

    def restore(self, like: Any) -> Any:
        """The newest state, placed as `like` says.

        Args:
          like: the state's tree of `jax.ShapeDtypeStruct`s with shardings.

        Raises:
          FileNotFoundError: if there is no checkpoint.
          ValueError: if the checkpoint is of another architecture; it names the first
            leaf that differs, with both shapes. Or if it cannot be read.
        """
        step = self._manager.latest_step()
        if step is None:
            raise FileNotFoundError(
                f"checkpoint: {self._manager.directory} holds no whole checkpoint."
            )
        # What is missing, cut or empty in a checkpoint, orbax and tensorstore report by
        # a ValueError. An OSError or a lack of memory is no damage and passes.
        try:
            held = self._manager.item_metadata(step)
        except ValueError as error:
            raise self._unreadable(step, error) from error
        self._compare(step, like, held)
        try:
            return self._manager.restore(step, args=ocp.args.StandardRestore(like))
        except ValueError as error:
            raise self._unreadable(step, error) from error

    def _unreadable(self, step: int, error: ValueError) -> ValueError:
        return ValueError(
            f"checkpoint: step {step} in {self._manager.directory} cannot be read "
            f"({error!s:.120}); if it is damaged, delete that folder to go on from the "
            "one before, or from the beginning."
        )

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

    def _compare(self, step: int, like: Any, held: Any) -> None:
        held = _shapes(held)
        want = _shapes(like)
        for name in sorted(want.keys() | held.keys()):
            if want.get(name) != held.get(name):
                raise ValueError(
                    f"checkpoint: step {step} in {self._manager.directory} is of "
                    f"another architecture: {name} is {_shape(held.get(name))} there, "
                    f"and {_shape(want.get(name))} in this configuration."
                )


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """Shape by path; lists, tuples and named tuples all count as sequences of names."""
    tree = getattr(tree, "tree", tree)
    leaves = jax.tree_util.tree_flatten_with_path(
        tree, is_leaf=lambda leaf: hasattr(leaf, "shape")
    )[0]
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): tuple(
            np.shape(leaf) if not hasattr(leaf, "shape") else leaf.shape
        )
        for path, leaf in leaves
    }


def _shape(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else f"of shape {shape}"
