# SPDX-License-Identifier: Apache-2.0
"""Several processes: what one finds out, all do; what differs is named."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import jax
import pytest

from fulcra_jax.training import hosts
from fulcra_jax.training.hosts import Hosts

HERE = pathlib.Path(__file__).parent


@pytest.fixture(scope="module")
def pair():
    """What each of two processes with four devices found."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    processes = [
        subprocess.Popen(
            [sys.executable, HERE / "hosts_worker.py", str(port), str(index)],
            cwd=HERE.parent,
            env=os.environ | {"JAX_NUM_CPU_DEVICES": "4", "PYTHONPATH": "."},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    said = [process.communicate(timeout=300) for process in processes]
    for process, (_, error) in zip(processes, said, strict=True):
        assert process.returncode == 0, error
    return [json.loads(out.splitlines()[-1]) for out, _ in said]


@pytest.mark.slow
def test_two_processes_see_all_devices_and_one_leads(pair):
    assert [found["devices"] for found in pair] == [8, 8]
    assert [found["lead"] for found in pair] == [True, False]
    assert [found["text"] for found in pair] == ["runs/of-0-é"] * 2


@pytest.mark.slow
def test_processes_that_were_started_unlike_are_refused(pair):
    for found in pair:
        assert found["alike"] == "none"
        assert "process 1 and process 0 have a different data" in found["unlike"]
        assert "2 hosts have 8; all should be used" in found["fewer"]


@pytest.mark.slow
def test_what_fails_on_one_process_fails_on_all(pair):
    message = "FileNotFoundError: rows.jsonl does not exist."
    assert pair[1]["together"] == message
    assert f"process 1 failed: {message}" in pair[0]["together"]
    assert pair[0]["mistake"] == "TypeError: a mistake"
    assert "process 0 failed: TypeError: a mistake" in pair[1]["mistake"]


@pytest.mark.slow
def test_a_wish_of_one_is_heard_by_all(pair):
    assert [found["votes"] for found in pair] == [[False, True]] * 2


@pytest.mark.slow
def test_each_process_holds_its_rows_and_one_gathers_the_tree(pair):
    assert [found["rows"] for found in pair] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert [found["total"] for found in pair] == [140.0, 140.0]  # 0 + 1 + 4 + ... + 49
    assert pair[0]["whole"] == list(range(8))
    assert pair[1]["whole"] is None


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, False),
        ({"SLURM_NTASKS": "4"}, False),  # a shell in an allocation, not a step
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "1"}, True),
        ({"SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, 0),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, True),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, True),
        ({"MEGASCALE_NUM_SLICES": "2"}, True),
    ],
)  # fmt: skip
def test_a_cluster_is_known_by_its_environment(environment, expected):
    assert hosts.several(environment) == expected


EIGHT = "0,1,2,3,4,5,6,7"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"CUDA_VISIBLE_DEVICES": "0,1"}, None),
        # srun --ntasks-per-node 1 --gpus-per-task 8
        ({"CUDA_VISIBLE_DEVICES": EIGHT, "SLURM_STEP_TASKS_PER_NODE": "1(x4)",
          "SLURM_NODEID": "3", "SLURM_LOCALID": "0"}, "all"),
        # --ntasks-per-node 8 --gres gpu:8: all see all.
        ({"CUDA_VISIBLE_DEVICES": EIGHT, "SLURM_STEP_TASKS_PER_NODE": "8(x2)",
          "SLURM_NODEID": "1", "SLURM_LOCALID": "5", "SLURM_GPUS_ON_NODE": "8"}, "5"),
        # --ntasks-per-node 2 --gres gpu:8
        ({"CUDA_VISIBLE_DEVICES": EIGHT, "SLURM_STEP_TASKS_PER_NODE": "2",
          "SLURM_LOCALID": "1"}, "4,5,6,7"),
        # --ntasks-per-node 8 --gpus-per-task 1: each sees its own.
        ({"CUDA_VISIBLE_DEVICES": "0", "SLURM_STEP_TASKS_PER_NODE": "8(x2)",
          "SLURM_NODEID": "1", "SLURM_LOCALID": "5", "SLURM_GPUS_ON_NODE": "8"}, "all"),
        # --ntasks-per-node 2 --gpus-per-task 4
        ({"CUDA_VISIBLE_DEVICES": "0,1,2,3", "SLURM_STEP_TASKS_PER_NODE": "2",
          "SLURM_LOCALID": "1", "SLURM_GPUS_ON_NODE": "8"}, "all"),
        # Nodes with unlike numbers of tasks.
        ({"CUDA_VISIBLE_DEVICES": "0,1", "SLURM_STEP_TASKS_PER_NODE": "2(x2),1",
          "SLURM_NODEID": "2", "SLURM_LOCALID": "0"}, "all"),
        # Nothing is said of GPUs, or the user has said which.
        ({"SLURM_STEP_TASKS_PER_NODE": "2", "SLURM_LOCALID": "1"}, None),
        ({"JAX_LOCAL_DEVICE_IDS": "0", "SLURM_STEP_TASKS_PER_NODE": "1"}, None),
        # mpirun in an allocation of SLURM: one daemon a node, two processes.
        ({"CUDA_VISIBLE_DEVICES": "0,1", "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
          "OMPI_COMM_WORLD_LOCAL_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}, "1"),
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "1"}, "all"),
    ],
)  # fmt: skip
def test_a_process_knows_its_own_gpus(environment, expected):
    assert hosts.own_gpus(environment) == expected


def test_one_process_of_a_host_has_all_gpus_of_it(monkeypatch):
    """What `jax.distributed.initialize` chooses under SLURM is put right."""
    environment = {
        "SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "node[1-4]", "SLURM_NTASKS": "4",
        "SLURM_PROCID": "2", "SLURM_LOCALID": "0", "SLURM_NODEID": "2",
        "SLURM_STEP_TASKS_PER_NODE": "1(x4)", "CUDA_VISIBLE_DEVICES": EIGHT,
    }  # fmt: skip
    for name, setting in environment.items():
        monkeypatch.setenv(name, setting)
    settings = {}
    monkeypatch.setattr(jax.distributed, "initialize", lambda: settings.clear())
    monkeypatch.setattr(jax.config, "update", settings.__setitem__)
    hosts.join(Hosts())
    assert settings["jax_cuda_visible_devices"] == "all"


def test_a_tpu_slice_whose_hosts_were_not_joined_is_refused(monkeypatch):
    hosts.check_joined()
    monkeypatch.setattr(jax, "process_count", lambda: 4)
    with pytest.raises(ValueError, match="not joined; give --hosts auto"):
        hosts.check_joined()


@pytest.mark.parametrize("text", ["x", "-1", "2.5"])
@pytest.mark.parametrize("name", ["SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE"])
def test_a_number_of_processes_that_is_none_is_refused(name, text):
    environment = {"SLURM_PROCID": "0", name: text}
    with pytest.raises(ValueError, match=f"has {name}={text}, which should be a numb"):
        hosts.several(environment)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mode": "maybe"}, "mode is 'maybe'; it should be one, auto or detect"),
        ({"coordinator": "host"}, "they go together: ADDRESS:PORT"),
        ({"coordinator": "host:x", "count": 2, "index": 0}, "they go together"),
        ({"coordinator": "host:99999", "count": 2, "index": 0}, "they go together"),
        ({"coordinator": ":1", "count": 2, "index": 0}, "they go together"),
        ({"coordinator": "host:1", "count": 2, "index": 2}, "an index below it"),
        ({"count": 2, "index": 0}, "they go together"),
    ],
)
def test_descriptions_of_hosts_are_checked(fields, message):
    with pytest.raises(ValueError, match=message):
        Hosts(**fields)


def test_one_process_is_alone():
    hosts.join(Hosts(mode="one"))
    assert hosts.lead()
    assert hosts.from_lead("x") == "x"
    assert hosts.together(lambda: 3) == 3
    hosts.agree({"a": "b"})
    hosts.barrier("nothing")
    with pytest.raises(ValueError, match="has 3000 bytes"):
        hosts.from_lead("x" * 3000)
