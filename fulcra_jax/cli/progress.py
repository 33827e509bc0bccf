# SPDX-License-Identifier: Apache-2.0
"""A bar of the rows done, on stderr."""

import rich.console
import rich.progress


class Bar:
    """A progress bar that can be called with the number of rows done."""

    def __init__(self, total: int, *, shown: bool = True) -> None:
        self._bar = rich.progress.Progress(
            *rich.progress.Progress.get_default_columns(),
            rich.progress.MofNCompleteColumn(),
            console=rich.console.Console(stderr=True),
            disable=not shown,
        )
        self._task = self._bar.add_task("scoring", total=total)

    def __call__(self, done: int) -> None:
        """Shows how many rows are done."""
        self._bar.update(self._task, completed=done)

    def __enter__(self) -> "Bar":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
