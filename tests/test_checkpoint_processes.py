# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of several processes: saved by some, read by others, bit for bit."""

import os
import pathlib
import shutil
import socket
import subprocess
import sys

import pytest

from tests.small_disk import mounted

ROOT = pathlib.Path(__file__).parents[1]

pytestmark = pytest.mark.slow


def run(folder, processes, devices, *words):
    """What each process said; every one of them did all the words."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    running = [
        subprocess.Popen(
            [
                sys.executable, "-m", "tests.checkpoint_worker", str(folder),
                str(port), str(processes), str(number), str(devices), *words,
            ],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for number in range(processes)
    ]  # fmt: skip
    try:
        said = [process.communicate(timeout=300)[0] for process in running]
    finally:
        for process in running:
            process.kill()
            process.communicate()
    for process, text in zip(running, said, strict=True):
        assert process.returncode == 0, text
        assert [
            line.split()[1] for line in text.splitlines() if line.startswith("done:")
        ] == list(words)
        assert "Traceback" not in text
        assert "ERROR" not in text
    return said


def test_two_processes_then_one_then_four_then_two(tmp_path):
    run(tmp_path, 2, 4, "save-1", "save-2", "restore-2")
    run(tmp_path, 1, 8, "restore-2", "save-3")
    run(tmp_path, 4, 2, "restore-3", "save-4")
    run(tmp_path, 2, 4, "restore-4")
    # And with fewer devices than it was saved from.
    run(tmp_path, 1, 4, "restore-4")
    assert sorted(os.listdir(tmp_path)) == ["2", "3", "4"]


def test_damage_that_one_process_alone_meets_sends_all_to_the_one_before(tmp_path):
    run(tmp_path, 2, 4, "save-1", "save-2")
    shutil.rmtree(tmp_path / "2" / "state" / "ocdbt.process_1")
    first, second = run(tmp_path, 2, 4, "asked-2", "restore-1", "save-2", "restore-2")
    for text in (first, second):
        assert f"refused: checkpoint: step 2 in {tmp_path} cannot be read (" in text
    # Process 0 speaks for all; what it says about the reason depends on who met it.
    assert first.count("warned:") == 1
    assert "it is now called damaged-2, and step 1 is used." in first
    assert "warned:" not in second
    assert sorted(os.listdir(tmp_path)) == ["1", "2", "damaged-2"]


def test_a_full_disk_is_said_by_every_process(tmp_path):
    with mounted(tmp_path / "disk") as disk:
        # What they save is 150 kB, and the larger one 4 MB of random bits.
        said = run(
            disk / "c", 2, 4, "save-1", "larger-2", "restore-1", "save-2", "restore-2"
        )
        for text in said:
            assert (
                "(the disk is full); checkpoint 1 remains, free space and resume."
                in text
            )
        assert sorted(os.listdir(disk / "c")) == ["1", "2"]
