# SPDX-License-Identifier: Apache-2.0
"""Several processes as one computation, each with its own devices.

Every process runs the same script. What one of them finds out alone (bad input, a
signal) is told to all before anybody acts on it: who stops alone leaves the others
waiting in the next collective operation.
"""

import dataclasses
import functools
import hashlib
import os
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

Found = TypeVar("Found")
_TEXT = 2048
"""Bytes of a text that travels between processes."""


@dataclasses.dataclass(frozen=True)
class Hosts:
    """Which processes belong together."""

    mode: str = "detect"
    """"one" process; "auto": jax asks the cluster (TPU pod, SLURM, Open MPI);
    "detect": auto where the environment names several hosts, else one. That of a
    TPU VM outside of GKE does not name them."""
    coordinator: str = ""
    """ADDRESS:PORT of process 0, for clusters that jax does not know."""
    count: int = 0
    """How many processes there are, with `coordinator`."""
    index: int = -1
    """Which one this is, from 0, with `coordinator`."""

    def __post_init__(self) -> None:
        if self.mode not in ("one", "auto", "detect"):
            raise ValueError(
                f"hosts.Hosts: mode is {self.mode!r}; it should be one, auto or detect."
            )
        by_hand = self.coordinator, self.count, self.index
        if by_hand == ("", 0, -1):
            return
        address, _, port = self.coordinator.rpartition(":")
        known = address and port.isdecimal() and 0 < int(port) < 2**16
        if not known or not 0 <= self.index < self.count:
            raise ValueError(
                f"hosts.Hosts: coordinator is {self.coordinator!r}, count "
                f"{self.count}, index {self.index}; they go together: ADDRESS:PORT, "
                "a number of processes, and an index below it."
            )


def several(environment: Mapping[str, str]) -> bool:
    """Whether a cluster's environment says that there is more than one process.

    >>> several({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_PROCID": "0"})
    True
    >>> several({"TPU_WORKER_HOSTNAMES": "localhost"})
    False

    Raises:
      ValueError: if a number of processes is none.
    """

    def number(name: str) -> int:
        text = environment.get(name) or "1"
        if not text.isdecimal():
            raise ValueError(
                f"hosts.several: the environment has {name}={text:.40}, which should "
                "be a number of processes; correct it, or give --hosts one."
            )
        return int(text)

    # A shell inside an allocation has SLURM_NTASKS too; only srun gives a step.
    if "SLURM_STEP_ID" in environment or "SLURM_PROCID" in environment:
        if number("SLURM_STEP_NUM_TASKS") > 1:
            return True
        if "SLURM_STEP_NUM_TASKS" not in environment and number("SLURM_NTASKS") > 1:
            return True
    return (
        "," in environment.get("TPU_WORKER_HOSTNAMES", "")
        or number("OMPI_COMM_WORLD_SIZE") > 1
        or number("MEGASCALE_NUM_SLICES") > 1
    )


def own_gpus(environment: Mapping[str, str]) -> str | None:
    """Which of the GPUs that a process sees are its own, under SLURM or Open MPI.

    jax takes one GPU for each process of such a job, by its number on the host. That
    leaves GPUs idle where one process has several, and names GPUs that are not there
    where the scheduler shows each process its own ones only.

    Args:
      environment: of the process.

    Returns:
      "all"; or numbers as "2,3", where all processes of the host see the same GPUs,
      which are then shared out evenly; or None where jax's choice should stand:
      outside of such a job, or nothing is known of the GPUs.

    >>> own_gpus({"SLURM_STEP_TASKS_PER_NODE": "1(x4)", "SLURM_NODEID": "2"})
    'all'
    """
    if "JAX_LOCAL_DEVICE_IDS" in environment:  # jax heeds it
        return None
    # mpirun inside an allocation inherits variables of SLURM: its own count.
    if "OMPI_COMM_WORLD_LOCAL_SIZE" in environment:
        tasks = int(environment["OMPI_COMM_WORLD_LOCAL_SIZE"])
        index = int(environment.get("OMPI_COMM_WORLD_LOCAL_RANK", "0"))
    else:
        counts = [
            int(count)
            for count, times in re.findall(
                r"(\d+)(?:\(x(\d+)\))?",
                environment.get("SLURM_STEP_TASKS_PER_NODE", ""),
            )
            for _ in range(int(times or 1))
        ]
        node = int(environment.get("SLURM_NODEID", "0"))
        tasks = counts[node] if node < len(counts) else 0
        index = int(environment.get("SLURM_LOCALID", "0"))
    if tasks < 2:
        return "all" if tasks else None
    names = environment.get("CUDA_VISIBLE_DEVICES") or environment.get(
        "ROCR_VISIBLE_DEVICES", ""
    )
    seen = len(names.split(",")) if names else 0
    there = int(environment.get("SLURM_GPUS_ON_NODE") or seen)
    if not seen:
        return None
    if seen < max(tasks, there):  # bound by the scheduler
        return "all"
    each = seen // tasks
    return ",".join(str(gpu) for gpu in range(index * each, (index + 1) * each))


def join(hosts: Hosts) -> None:
    """Makes this process part of the computation; before jax is asked for a device.

    Raises:
      ValueError: if there is no cluster to ask, or the others do not come.
    """
    if hosts.coordinator:
        arguments = {
            "coordinator_address": hosts.coordinator,
            "num_processes": hosts.count,
            "process_id": hosts.index,
        }
    elif hosts.mode == "auto" or (hosts.mode == "detect" and several(os.environ)):
        arguments = {}
    else:
        return
    # Without it, processes on CPUs cannot compute together.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(**arguments)
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"hosts.join: the processes did not come together ({error!s:.200}); give "
            "--coordinator ADDRESS:PORT --num-hosts N --host-index I to each of them, "
            "or --hosts one for a single process."
        ) from error
    gpus = own_gpus(os.environ)
    if gpus is not None:
        jax.config.update("jax_cuda_visible_devices", gpus)
        jax.config.update("jax_rocm_visible_devices", gpus)


def check_joined() -> None:
    """Raises ValueError if devices of several processes are seen, but no `join` was.

    The runtime of a TPU slice joins its hosts by itself; checkpoints need more.
    """
    if jax.process_count() > 1 and not jax.distributed.is_initialized():
        raise ValueError(
            f"hosts.check_joined: there are {jax.process_count()} processes that were "
            "not joined; give --hosts auto to each of them."
        )


def lead() -> bool:
    """Whether this process is the one that writes and prints."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Returns when every process has come here; at once if there is only one."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def from_lead(text: str) -> str:
    """The text that process 0 has.

    Raises:
      ValueError: if it is longer than 2048 bytes.
    """
    raw = text.encode()
    if len(raw) > _TEXT:
        raise ValueError(
            f"hosts.from_lead: the text has {len(raw)} bytes; it should have at most "
            f"{_TEXT}."
        )
    if jax.process_count() == 1:
        return text
    padded = np.frombuffer(raw.ljust(_TEXT, b"\0"), np.uint8)
    told = np.asarray(multihost_utils.broadcast_one_to_all(padded))
    return told.tobytes().rstrip(b"\0").decode()


def together(work: Callable[[], Found]) -> Found:
    """Does what may fail on one process only; then it fails on all.

    Args:
      work: reads files, checks; holds no collective operation.

    Returns:
      What the work returns here.

    Raises:
      Exception: what the work raises here.
      ValueError: if it fails on another process only; it names that one and its error.
    """
    if jax.process_count() == 1:
        return work()
    error, found = None, None
    try:
        found = work()
    except Exception as raised:  # a mistake, too, would leave the others waiting
        error = raised
    said = b"" if error is None else f"{type(error).__name__}: {error}".encode()
    texts = _gather(np.frombuffer(said[:_TEXT].ljust(_TEXT, b"\0"), np.uint8))
    if error is not None:
        raise error
    for process, text in enumerate(texts):
        if text.any():
            words = text.tobytes().rstrip(b"\0").decode(errors="replace")
            raise ValueError(f"hosts.together: process {process} failed: {words}")
    return found  # pyright: ignore[reportReturnType]  # there was no error


def agree(entries: Mapping[str, str]) -> None:
    """Checks that all processes were started alike.

    Args:
      entries: what decides the numbers, by name: the configuration, the data, ...

    Raises:
      ValueError: if an entry differs between processes; it names entry and processes.
    """
    if jax.process_count() == 1:
        return
    digests = np.stack(
        [
            np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8)
            for text in entries.values()
        ]
    )
    everybody = _gather(digests)
    for place, name in enumerate(entries):
        differing = [
            str(process)
            for process in range(len(everybody))
            if (everybody[process, place] != everybody[0, place]).any()
        ]
        if differing:
            raise ValueError(
                f"hosts.agree: process {', '.join(differing)} and process 0 have a "
                f"different {name}; start all of them with the same command, files "
                "and versions."
            )


class Vote:
    """A wish of any process, which all learn of at the same step.

    The hands go into the program of a step, so that it is no program of its own: two
    that sum over devices at a time may meet in another order on another process. What
    comes out is read a step later, when nothing waits for it.
    """

    def __init__(self, mesh: Mesh) -> None:
        """Args: mesh: all devices."""
        self.sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        self._size = mesh.devices.size
        self._local = len(self.sharding.addressable_devices)

    def hands(self, wish: bool) -> jax.Array:
        """`[devices]` bool, those of this process up if it has the wish."""
        mine = np.full(self._local, wish)
        return jax.make_array_from_process_local_data(
            self.sharding, mine, (self._size,)
        )


def whole(tree: Any) -> Any:
    """The tree as numpy arrays on process 0, and None on the others.

    One leaf at a time is gathered on the devices: none holds the whole tree.
    """

    def one(leaf: jax.Array) -> np.ndarray | None:
        if leaf.is_fully_addressable:
            return np.asarray(leaf) if lead() else None
        mesh = leaf.sharding.mesh  # pyright: ignore[reportAttributeAccessIssue]
        everywhere = NamedSharding(mesh, PartitionSpec())
        held = _gathered(everywhere)(leaf)
        return np.asarray(held.addressable_data(0)) if lead() else None

    host = jax.tree.map(one, tree)
    return host if lead() else None


@functools.cache
def _gathered(everywhere: NamedSharding) -> Callable[[jax.Array], jax.Array]:
    return jax.jit(lambda leaf: leaf, out_shardings=everywhere)


def _gather(array: np.ndarray) -> np.ndarray:
    """`[processes, ...]`: the array of each process."""
    return np.asarray(multihost_utils.process_allgather(array))
