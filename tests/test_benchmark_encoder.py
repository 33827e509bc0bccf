# SPDX-License-Identifier: Apache-2.0
"""The encoder benchmark: it runs, its figures follow from its times, its bars judge."""

import itertools
import json
import subprocess
import sys
import time

import numpy as np
import pytest

from experiments.benchmarks import encoder, encoder_ours, encoder_report, rounds
from fulcra_jax.models import positions

TINY = "--model tiny --layers 1 --rounds 2 --retries 0 --least-seconds 0".split()


def run(path, *flags):
    return encoder.main([*TINY, "--out", str(path), *flags])


def test_it_runs_with_jax_alone_and_reports(tmp_path, capsys):
    flags = "--shapes 4x16 --short 1x8 --bfloat16 yes --skip torch".split()
    assert run(tmp_path, *flags) == 0
    report = json.loads((tmp_path / "encoder.json").read_text())
    cells = [(tuple(cell["shape"]), cell["mode"]) for cell in report["cells"]]
    assert cells == [((4, 16), "forward"), ((4, 16), "training"), ((1, 8), "forward")]
    for cell in report["cells"]:
        assert list(cell["variants"]) == [
            "skew", "gather", "whole", "off", "plain", "bfloat16",
        ]  # fmt: skip
        assert set(cell["missing"]) == {"eager", "compiled", "flash"}
        assert cell["variants"]["gather"]["difference"] < 1e-5
        assert cell["variants"]["whole"]["difference"] < 1e-5
        assert cell["variants"]["bfloat16"]["difference"] < 0.1
        assert len(cell["rounds"]) == 2
    assert {row["variant"] for row in report["attention"]} >= {"skew", "gather", "off"}
    printed = capsys.readouterr().out
    assert "transformers: not measured: skipped" in printed
    assert printed.count("bar: ") == len(report["bars"])
    assert (tmp_path / "encoder.md").read_text() in printed
    assert (tmp_path / "encoder.png").stat().st_size > 0


@pytest.mark.parity
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_transformers_computes_the_same(tmp_path):
    pytest.importorskip("torch")
    flags = "--shapes 3x16 --short 1x8 --skip compiled --no-memory".split()
    assert run(tmp_path, *flags) == 0
    report = json.loads((tmp_path / "encoder.json").read_text())
    for cell in report["cells"]:
        assert cell["missing"]["flash"]
        assert cell["variants"]["eager"]["difference"] < 1e-5
        assert cell["variants"]["eager"]["ratios"]["skew"]["median"] > 0.0


def test_it_needs_nothing_but_jax_flax_and_numpy():
    code = (
        "import sys\n"
        "for name in ('tensorflow_datasets', 'grain', 'tyro', 'torch', 'optax',\n"
        "             'transformers', 'tokenizers', 'safetensors', 'matplotlib'):\n"
        "    sys.modules[name] = None\n"
        "from experiments.benchmarks import encoder\n"
        "encoder.parser('').parse_args([])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--rounds", "0"], "rounds is 0; expected at least 1"),
        (["--padded", "1.5"], "padded is 1.5; expected a share in"),
        (["--padded", "nan"], "padded is nan; expected a share in"),
        (["--foreign", "nan"], "foreign is nan; expected a share in"),
        (["--least-seconds", "nan"], "least_seconds is nan; expected seconds in"),
        (["--least-seconds", "inf"], "least_seconds is inf; expected seconds in"),
        (["--least-seconds", "-1"], "least_seconds is -1.0; expected seconds in"),
        (["--compile-limit", "nan"], "compile_limit is nan; expected seconds in"),
        (["--compile-limit", "-1"], "compile_limit is -1.0; expected seconds in"),
        (["--shapes", "", "--short", ""], "there is no shape or mode to measure"),
    ],
)
def test_bad_numbers_are_one_sentence(tmp_path, capsys, flags, message):
    assert run(tmp_path, *flags) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--shapes", "8"], "'8' is no shape; expected BATCHxLENGTH"),
        (["--shapes", "0x8"], "'0x8' is no shape"),
        (["--shapes", "\N{SUPERSCRIPT TWO}x8"], "x8' is no shape; expected BATCHx"),
        (["--shapes", f"{'9' * 5000}x8"], "is no shape; expected BATCHxLENGTH"),
        (["--shapes", "1x65537"], "'1x65537' is too large; expected a length of"),
        (["--short", "4194305x1"], "'4194305x1' is too large; expected a length"),
        (["--skip", "skew"], "'skew' is none of: gather, whole, off"),
        (["--modes", "backward"], "'backward' is none of: forward, training"),
    ],
)
def test_bad_words_are_refused_by_name(tmp_path, capsys, flags, message):
    with pytest.raises(SystemExit):
        run(tmp_path, *flags)
    assert message in capsys.readouterr().err


def test_results_have_a_place_before_anything_is_measured(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(encoder_ours, "parameters", None)
    for name in encoder.FILES:
        (tmp_path / name).mkdir()
        assert run(tmp_path) == 1
        message = f"{tmp_path / name} is a directory; it should be a file or free"
        assert message in capsys.readouterr().err
        (tmp_path / name).rmdir()
    (tmp_path / "file").touch()
    assert run(tmp_path / "file") == 1
    assert "file is a file; out should be a directory" in capsys.readouterr().err
    assert run(tmp_path / "file" / "out") == 1
    assert "out cannot be written to (Not a directory)" in capsys.readouterr().err


def test_without_positions_the_scale_is_the_same():
    config = encoder_ours.config_of("tiny", 1)
    inputs = encoder_ours.inputs_of(config, 2, 8, padded=0.0)
    params = encoder_ours.parameters(config)
    # With a table of zeros that is not normalised every position term is a constant of
    # its row or column; without biases of the projections it is zero.
    params = dict(params)
    params["relative_norm"] = {
        name: np.zeros_like(leaf) for name, leaf in params["relative_norm"].items()
    }
    results = [
        encoder_ours.way_of(
            config,
            params,
            encoder_ours.Variant("skew", positions, np.dtype("float32")),
            "forward",
            inputs,
        ).result()
        for positions in (True, False)
    ]
    np.testing.assert_allclose(*results, atol=1e-6)


def test_a_share_of_the_rows_is_padded():
    config = encoder_ours.config_of("tiny", 1)
    inputs = encoder_ours.inputs_of(config, 8, 32, padded=0.25)
    full = inputs.mask.all(1)
    assert full.sum() >= 6
    assert (inputs.weights[~inputs.mask] == 0.0).all()
    assert (inputs.input_ids[~inputs.mask] == 0).all()


def test_flops_of_one_layer_by_hand():
    config = encoder_ours.config_of("tiny", 1)  # D 32, F 64
    found = encoder_ours.flops_of(config, 2, 10, "training")
    projections = 3 * 4 * 2 * (20 * 32 * 32)
    mlp = 3 * 2 * 2 * (20 * 32 * 64)
    attention = 3 * 2 * 2 * (2 * 10 * 10 * 32)
    assert found["counted"] == projections + mlp + attention
    assert found["positions"] == attention


def wait(seconds):
    return lambda: time.sleep(seconds)


LIMITS = {"rounds": 3, "retries": 2, "least_seconds": 0.0}


def test_every_variant_is_timed_in_every_round(monkeypatch):
    monkeypatch.setattr(rounds, "busy_seconds", lambda: None)
    ways = {"slow": wait(0.03), "fast": wait(0.01)}
    found = rounds.measure(ways, foreign_limit=0.1, **LIMITS)
    assert [set(one.times) for one in found.rounds] == [{"slow", "fast"}] * 3
    assert [one.foreign for one in found.rounds] == [None] * 3
    assert not found.void
    assert 1.5 < found.ratio("slow", "fast")["median"] < 4.0


def loads(monkeypatch, *seconds):
    """The processors work so many seconds for others in each round."""
    total = itertools.accumulate(
        x for load in seconds for x in (1.0, load * rounds.cores())
    )
    monkeypatch.setattr(rounds, "busy_seconds", lambda: next(total))
    monkeypatch.setattr(rounds, "own_seconds", lambda: 0.0)


def test_rounds_with_foreign_load_are_repeated(monkeypatch):
    loads(monkeypatch, 0.0001, 9.0, 0.0001, 0.0001)
    found = rounds.measure({"one": wait(0.01)}, foreign_limit=0.1, **LIMITS)
    assert (len(found.rounds), len(found.dropped), found.void) == (3, 1, False)
    assert found.dropped[0].foreign > 1.0


def test_without_quiet_rounds_the_measurement_is_void(monkeypatch):
    loads(monkeypatch, *[9.0] * 5)
    found = rounds.measure({"one": wait(0.01)}, foreign_limit=0.1, **LIMITS)
    assert (len(found.rounds), found.dropped, found.void) == (5, [], True)


def test_foreign_load_is_seen_for_what_it_is():
    busy = rounds.busy_seconds()
    if busy is None:
        pytest.skip("there is no /proc/stat")
    code = "import time; t = time.time() + 1.0\nwhile time.time() < t: pass"
    with subprocess.Popen([sys.executable, "-c", code]) as other:
        (one,) = rounds.measure(
            {"idle": wait(1.0)},
            rounds=1,
            retries=0,
            least_seconds=0.0,
            foreign_limit=None,
        ).rounds
        other.wait()
    assert one.times["idle"].cpu < 0.1
    assert rounds.busy_seconds() - busy > 0.5


def cell_of(mode, shape=(4, 512), void=False, **milliseconds):
    """A cell with these medians."""
    variants = {
        name: {
            "ratios": {
                base: {"median": ms / milliseconds[base]} for base in ("skew", "off")
            },
            "temp_bytes": 100.0 * ms,
        }
        for name, ms in milliseconds.items()
    }
    return {"shape": list(shape), "mode": mode, "void": void, "variants": variants}


def verdicts(*cells, attention=()):
    bars = encoder_report.bars({"cells": list(cells), "attention": list(attention)})
    return {bar.name: bar for bar in bars}


def test_bars_on_time_over_the_encoder_without_positions():
    found = verdicts(cell_of("forward", off=10, skew=12, gather=15, whole=20, eager=20))
    over = found["4x512 forward, time over the encoder without positions"]
    share = found["4x512 forward, share of what the gather form pays extra"]
    assert (over.figure, over.verdict) == (1.2, "holds")
    assert share.figure == pytest.approx(0.4)
    assert share.verdict == "holds"
    name = "share of what the gather form, whole table pays extra"
    assert found[f"4x512 forward, {name}"].figure == pytest.approx(0.2)
    found = verdicts(cell_of("forward", void=True, off=10, skew=14, gather=15))
    over = found["4x512 forward, time over the encoder without positions"]
    assert over.verdict == "void, does not hold"
    assert found["8x128 training, time over the encoder without positions"].figure is (
        None
    )


def test_the_whole_table_is_in_use_only_inside():
    whole = encoder_ours.Variant("gather", True, np.float32, whole=True)
    with encoder_ours.rows_in_use(whole):
        used = positions.used(4, 8, 64)
    assert (used.first, used.last, used.slots.tolist()) == (
        0,
        16,
        [5, 6, 7, 8, 9, 10, 11],
    )
    used = positions.used(4, 8, 64)
    assert (used.first, used.last, used.slots.tolist()) == (
        5,
        12,
        [0, 1, 2, 3, 4, 5, 6],
    )


def test_bars_on_transformers():
    fast = "4x512 training, times as fast as transformers"
    one = cell_of("training", off=10, skew=12, eager=9)
    assert verdicts(one)[fast].verdict == "does not hold"
    # Without positions it is not as fast as transformers either: 0.9 times that counts.
    one = cell_of("training", off=10, skew=10.5, eager=9)
    assert verdicts(one)[fast].verdict == "holds"
    one = cell_of("forward", off=10, skew=12, eager=15)
    found = verdicts(one)
    name = "4x512 forward, times as fast as transformers"
    assert found[name].verdict == "holds"
    assert found[f"{name}, at 512"].verdict == "does not hold"
    short = cell_of("forward", (1, 16), off=1, skew=1, eager=5)
    name = "one text of 16 tokens, times as fast as transformers"
    assert verdicts(short)[name].verdict == "holds"
    assert verdicts()[name].verdict == "not measured"


def test_bars_on_memory():
    sizes = {"skew": 10, "gather": 60, "off": 12}
    alone = [
        {"shape": [4, 512], "variant": name, "temp_bytes": size}
        for name, size in sizes.items()
    ]
    one = cell_of("training", off=10, skew=11, gather=30, eager=20)
    found = [
        bar for bar in verdicts(one, attention=alone).values() if "mem" in bar.name
    ]
    assert [bar.verdict for bar in found] == [
        "holds", "not measured", "does not hold", "holds",
    ]  # fmt: skip


def test_wrong_figures_are_no_benchmark():
    assert encoder.wrong({"gather": 1e-7}, "forward", "float32") == {}
    with pytest.raises(ValueError, match=r"gather differs from ours by 1\.0e-02"):
        encoder.wrong({"gather": 1e-2}, "forward", "float32")
    with pytest.raises(ValueError, match="eager differs from ours by nan"):
        encoder.wrong({"eager": float("nan")}, "forward", "bfloat16")
    assert "flash" in encoder.wrong({"flash": 1e-2}, "training", "float32")
