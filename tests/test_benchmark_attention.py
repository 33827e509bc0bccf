# SPDX-License-Identifier: Apache-2.0
"""The benchmark of attention's options: it runs, and every variant is the same core."""

import json

import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import attention as benchmark


def test_it_runs_and_reports(tmp_path, capsys):
    flags = "--shapes 1x8 --rounds 1 --retries 0 --least-seconds 0".split()
    assert benchmark.main([*flags, "--out", str(tmp_path)]) == 0
    [cell] = json.loads((tmp_path / "attention.json").read_text())["cells"]
    assert cell["variants"].keys() == benchmark.variants().keys()
    assert cell["variants"][benchmark.OFF]["over"]["median"] == 1.0
    assert (tmp_path / "attention.md").read_text() in capsys.readouterr().out


def test_every_variant_with_positions_has_the_same_gradient():
    random = np.random.default_rng(0)
    shapes = [(12, 2, 9, 64)] * 3 + [(12, 17, 64)] * 2
    inputs = [jnp.asarray(random.standard_normal(s, np.float32)) for s in shapes]
    mask, slots = jnp.arange(18).reshape(2, 9) < 15, np.arange(17)
    found = {
        name: benchmark.program(inputs, mask, slots, *options)(*inputs)
        for name, options in benchmark.variants().items()
        if not name.startswith(benchmark.OFF)
    }
    want = found.pop(benchmark.GATHER)
    assert len(found) > 8
    for name, got in found.items():
        for a, b in zip(got, want, strict=True):
            # Sums of some hundred float32 products of order one.
            np.testing.assert_allclose(a, b, rtol=0, atol=2e-5, err_msg=name)


def test_bad_numbers_are_one_sentence(tmp_path, capsys):
    assert benchmark.main(["--rounds", "0", "--out", str(tmp_path)]) == 1
    assert "rounds is 0" in capsys.readouterr().err
