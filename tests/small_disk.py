# SPDX-License-Identifier: Apache-2.0
"""A disk of two megabytes, to be filled."""

import contextlib
import shutil
import subprocess

import pytest


@contextlib.contextmanager
def mounted(folder):
    """The folder as a disk of its own; skips the test where one cannot be mounted."""
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(words).returncode:
        pytest.skip("a small disk cannot be mounted here: that needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
