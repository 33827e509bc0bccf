# SPDX-License-Identifier: Apache-2.0
"""One of two processes that test_hosts.py starts; prints what it found as JSON."""

import json
import sys

import jax
import numpy as np
from jax.sharding import PartitionSpec as P

from fulcra_jax.training import hosts, sharding
from fulcra_jax.training.sharding import MeshShape


def refusal(work):
    """The message of the error that the work ends with."""
    try:
        work()
    except (ValueError, OSError, TypeError) as error:
        return f"{type(error).__name__}: {error}"
    return "none"


def fails_on_one():
    if jax.process_index() == 1:
        raise FileNotFoundError("rows.jsonl does not exist.")
    return "read"


def is_mistaken_on_one():
    if jax.process_index() == 0:
        raise TypeError("a mistake")


def main(port, index):
    hosts.join(hosts.Hosts(coordinator=f"localhost:{port}", count=2, index=index))
    mesh = sharding.make_mesh(MeshShape(fsdp=4))
    found = {
        "devices": len(jax.devices()),
        "lead": hosts.lead(),
        "text": hosts.from_lead(f"runs/of-{index}-é"),
        "alike": refusal(lambda: hosts.agree({"configuration": "a", "data": "b"})),
        "unlike": refusal(
            lambda: hosts.agree({"configuration": "a", "data": f"b{index}"})
        ),
        "together": refusal(lambda: hosts.together(fails_on_one)),
        "mistake": refusal(lambda: hosts.together(is_mistaken_on_one)),
        "fewer": refusal(lambda: sharding.make_mesh(MeshShape(data=2))),
    }
    vote = hosts.Vote(mesh)
    raised = jax.jit(jax.numpy.any, out_shardings=sharding.replicated(mesh))
    found["votes"] = [
        bool(raised(vote.hands(wish and index == 1))) for wish in (False, True)
    ]
    # Rows 0 to 3 belong to the first process, 4 to 7 to the second.
    own = sharding.host_rows(8, mesh)
    batch = sharding.place_batch({"x": np.arange(8.0)[own]}, 8, mesh)
    found["rows"] = own.tolist()
    total = jax.jit(lambda x: (x * x).sum(), out_shardings=sharding.replicated(mesh))
    found["total"] = float(total(batch["x"]))
    host = {"a": np.arange(8.0)}
    places = sharding.shardings(host, (("a", P(("data", "fsdp"))),), mesh)
    whole = hosts.whole(sharding.place_params(host, places))
    found["whole"] = None if whole is None else whole["a"].tolist()
    hosts.barrier("end")
    print(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
