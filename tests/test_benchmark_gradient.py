# SPDX-License-Identifier: Apache-2.0
"""The benchmark of gradients: its ways differ in what they say they differ in."""

import json

import pytest

from experiments.benchmarks import gradient

TINY = "--rows 2 --length 16 --width 32 --layers 1 --rounds 2".split()


def test_it_reports_every_way_beside_the_present_one(tmp_path, capsys):
    assert gradient.main([*TINY, "--out", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "gradient.json").read_text())
    assert list(report["seconds"]) == list(gradient.WAYS)
    assert report["of as it is"]["as it is"]["median"] == 1.0
    assert len(report["rounds"]) == 2
    assert (tmp_path / "gradient.md").read_text() in capsys.readouterr().out


def test_the_ways_differ_in_dropout_alone_but_for_rounding():
    flags = gradient.parser().parse_args(TINY)
    norms = {name: float(gradient.gradient_of(flags, name)()) for name in gradient.WAYS}
    assert norms["two axes"] == pytest.approx(norms["as it is"], rel=1e-5)
    assert norms["both"] == pytest.approx(norms["threefry"], rel=1e-5)
    assert abs(norms["threefry"] / norms["as it is"] - 1) > 1e-4


@pytest.mark.parametrize(
    ("flag", "number", "what"),
    [("rows", 0, "at least 1"), ("width", 33, "multiple of 32"),
     ("length", 513, "at most 512")],
)  # fmt: skip
def test_bad_sizes_are_refused(flag, number, what, capsys):
    assert gradient.main([*TINY, f"--{flag}", str(number)]) == 1
    assert what in capsys.readouterr().err
