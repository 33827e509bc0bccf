# SPDX-License-Identifier: Apache-2.0
"""One of several processes that save and restore; started by a test.

python -m tests.checkpoint_worker FOLDER PORT PROCESSES PROCESS DEVICES WORD...

Words are done in order. save-STEP saves the state of that step, restore-STEP restores
the newest and compares it with that bit for bit, asked-STEP asks for a damaged step,
larger-STEP saves a state for which there is no room.
"""

import sys
import warnings

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from fulcra_jax.training.checkpoint import Checkpoints

SPECS = {
    "kernel": PartitionSpec(("data", "fsdp"), "tensor"),
    "rows": PartitionSpec(("data", "fsdp", "tensor")),
    "bias": PartitionSpec("tensor"),
    "count": PartitionSpec(),
    "none": PartitionSpec(),
}


def host(step, rows=2048):
    """The whole state as every process knows it."""
    generator = np.random.default_rng(step)
    return {
        "kernel": generator.normal(size=(16, 24)).astype(np.float32),
        "rows": generator.integers(0, 2**32, (rows, 16), np.uint32),
        "bias": generator.normal(size=(24,)).astype(jax.numpy.bfloat16),
        "count": np.int32(step),
        "none": np.zeros((0, 2), np.float32),
    }


def placed(step, places, rows=2048):
    """That state on the mesh; a process makes the shards of its devices."""
    return {
        name: jax.make_array_from_callback(
            leaf.shape, places[name], lambda at, leaf=leaf: np.asarray(leaf)[at]
        )
        for name, leaf in host(step, rows).items()
    }


def check(found, step, places):
    """Every shard of this process is that of the state, bit for bit."""
    for name, leaf in host(step).items():
        assert found[name].sharding == places[name], name
        for shard in found[name].addressable_shards:
            want = np.asarray(leaf)[shard.index]
            assert np.asarray(shard.data).tobytes() == want.tobytes(), name


def main(folder, port, processes, process, devices, *words):
    jax.config.update("jax_num_cpu_devices", int(devices))
    if int(processes) > 1:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(
            coordinator_address=f"localhost:{port}",
            num_processes=int(processes),
            process_id=int(process),
        )
    assert jax.process_count() == int(processes)
    count = jax.device_count()
    mesh = jax.make_mesh(
        (2, 2, count // 4), ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3
    )
    places = {name: NamedSharding(mesh, spec) for name, spec in SPECS.items()}
    like = {
        name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=places[name])
        for name, leaf in host(0).items()
    }
    with Checkpoints(folder, keep=3) as saved:
        for word in words:
            what, number = word.split("-")
            step = int(number)
            match what:
                case "save":
                    saved.save(step, placed(step, places))
                    saved.wait()
                case "restore":
                    with warnings.catch_warnings(record=True) as said:
                        warnings.simplefilter("always")
                        check(saved.restore(like), step, places)
                    for one in said:
                        print("warned:", one.message)
                case "asked":
                    try:
                        saved.restore(like, step=step)
                    except ValueError as error:
                        print("refused:", error)
                case "larger":
                    try:
                        saved.save(step, placed(step, places, rows=64_000))
                        saved.wait()
                    except OSError as error:
                        print("failed:", error)
            print("done:", word, "latest", saved.latest_step(), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
