# SPDX-License-Identifier: Apache-2.0
"""Dashboards that a run may be watched on: TensorBoard, Weights & Biases.

Each is a `writers.Writer`; its library is imported where it is made, and may be absent.
"""

import importlib.util
import os
import pathlib
import time
import uuid
from typing import Any

from fulcra_jax.training.writers import Figures, plain

LIBRARIES = {"tensorboard": "tensorboardX", "wandb": "wandb"}
"""The library of each dashboard."""


def check(dashboard: str) -> None:
    """Raises ImportError if the library of a dashboard is not installed.

    Args:
      dashboard: tensorboard or wandb.
    """
    library = LIBRARIES[dashboard]
    if importlib.util.find_spec(library) is None:
        raise ImportError(
            f"dashboards.check: {library} is not installed; pip install "
            '"fulcra_jax[watch]" installs it.'
        )


class TensorBoard:
    """Event files that TensorBoard shows, by tensorboardX.

    What is written here is on disk when `write` returns: tensorboardX's own writer
    leaves that to a thread, and blocks for ever where the thread has met a full disk.
    """

    def __init__(
        self, folder: str | pathlib.Path, config_text: str = "", *, begun: int = 0
    ) -> None:
        """Where to write.

        Args:
          folder: of the event files; made when missing. A resumed run adds a file.
          config_text: the configuration, shown as text.
          begun: steps done before; what an earlier process wrote of later steps is
            hidden, because they are done again.

        Raises:
          ImportError: if tensorboardX is not installed.
        """
        check("tensorboard")
        self._folder, self._text, self._begun = pathlib.Path(folder), config_text, begun
        self._events: Any = None

    def open(self) -> None:
        """Begins an event file."""
        from tensorboardX import (  # pyright: ignore
            event_file_writer,
            summary,
        )
        from tensorboardX.proto import event_pb2  # pyright: ignore

        self._folder.mkdir(parents=True, exist_ok=True)
        events: Any = event_pb2  # protobuf makes its classes when it is imported
        self._new_event, self._scalar = events.Event, summary.scalar
        # Names go by the second and the host: a run resumed at once, or from another
        # container, must not overwrite what was there.
        suffix = f".{self._begun}.{os.getpid()}.{uuid.uuid4().hex[:8]}"
        self._events = event_file_writer.EventsWriter(
            str(self._folder / "events"), suffix
        )
        if self._begun:
            start = events.SessionLog(status=events.SessionLog.START)
            self._add(self._begun + 1, session_log=start)
        if self._text:
            # Four spaces: TensorBoard reads Markdown, and this is no prose.
            text = "\n".join("    " + line for line in self._text.splitlines())
            self._add(self._begun, summary=summary.text("config", text))
        self._events.flush()

    def write(self, step: int, split: str, figures: Figures) -> None:
        """Adds the figures as curves SPLIT/NAME; one that is not finite is left out."""
        for name, number in _finite(figures).items():
            self._add(step, summary=self._scalar(f"{split}/{name}", number))
        self._events.flush()

    def close(self) -> None:
        """Closes the file."""
        if self._events is not None:
            self._events.close()

    def _add(self, step: int, **what: Any) -> None:
        event = self._new_event(wall_time=time.time(), step=step, **what)
        self._events.write_event(event)


class WeightsAndBiases:
    """A run of Weights & Biases; a resumed run continues the same curves.

    Steps that were shown before are not shown again. `WANDB_MODE=offline` keeps all in
    the folder, for `wandb sync`; there every process that resumed is a folder of its
    own with the same id.
    """

    def __init__(
        self,
        folder: str | pathlib.Path,
        name: str,
        config: dict[str, Any],
        resume_id: str | None = None,
        *,
        project: str = "fulcra_jax",
    ) -> None:
        """What the run is.

        Args:
          folder: of the run; wandb/ and wandb-id.txt are made there.
          name: of the run, as shown.
          config: what is shown beside it.
          resume_id: the id there; None is that of wandb-id.txt, or a new one.
          project: where the run is shown.

        Raises:
          ImportError: if wandb is not installed.
        """
        check("wandb")
        import wandb  # pyright: ignore

        self._wandb: Any = wandb
        self._folder, self._id = pathlib.Path(folder), resume_id
        self._about = {"project": project, "name": name, "config": config}
        self._run: Any = None

    def open(self) -> None:
        """Begins the run, or continues it."""
        kept = self._folder / "wandb-id.txt"
        self._folder.mkdir(parents=True, exist_ok=True)
        held = kept.read_text("utf-8").strip() if kept.is_file() else ""
        run_id = self._id or held or uuid.uuid4().hex[:8]
        if run_id != held:
            kept.write_text(run_id + "\n", "utf-8")
        self._run = self._wandb.init(
            dir=str(self._folder),
            id=run_id,
            resume="allow",
            **self._about,
            settings=self._wandb.Settings(
                # The progress line is redrawn in place; nobody waits for ever.
                console="off",
                login_timeout=60.0,
                init_timeout=60.0,
                finish_timeout=60.0,
            ),
        )
        self._next = self._run.step

    def write(self, step: int, split: str, figures: Figures) -> None:
        """Adds the figures as curves SPLIT/NAME; one that is not finite is left out."""
        if step < self._next:
            return  # wandb would refuse each with a warning of its own
        named = {f"{split}/{name}": x for name, x in _finite(figures).items()}
        self._run.log(named, step=step)

    def close(self) -> None:
        """Waits for what is not yet sent, a minute at most."""
        if self._run is not None:
            self._run.finish()


def _finite(figures: Figures) -> dict[str, int | float]:
    numbers = {name: plain(number) for name, number in figures.items()}
    return {name: number for name, number in numbers.items() if number is not None}
