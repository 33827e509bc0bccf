# SPDX-License-Identifier: Apache-2.0
"""ValueEval'23: reading its files, and judging systems on its categories."""

import pathlib

import numpy as np
import pytest
from valueeval_files import LABELS_HEADER, folder, labels_line

from experiments import prepare
from experiments import valueeval as script
from experiments.config import Config, Loss, load_config, on_source, save_config
from experiments.recipes import RECIPES
from fulcra_jax import values
from fulcra_jax.configs import HierarchicalHead, QueryHead
from fulcra_jax.data import source, valueeval
from fulcra_jax.data.tokenizer import PairTokenizer
from fulcra_jax.report import presence

SHARED = pathlib.Path(__file__).parents[2] / "shared" / "data" / "valueeval23"
HEADER = "Argument ID\tConclusion\tStance\tPremise\n"


def test_rows_of_both_files_belong_together_by_their_id(tmp_path):
    (tmp_path / "arguments-x.tsv").write_text(
        HEADER + "A1\tWe should\tin favor of\tit helps\n"
        'A2\t"Bullet for bullet" is right\tagainst\tan "eye" for\n'
        "A3\tWe should\tIn favour  of\tyes\n"
    )
    (tmp_path / "labels-x.tsv").write_text(
        LABELS_HEADER + labels_line("A2", 0, 19) + labels_line("A1", 3)
    )
    rows, rejects, notes = valueeval.read_file(tmp_path / "arguments-x.tsv")
    assert not rejects
    assert [row.prompt for row in rows] == [
        "in favor of: We should",
        'against: "Bullet for bullet" is right',
        "in favor of: We should",
    ]
    assert [np.flatnonzero(row.labels).tolist() for row in rows] == [[3], [0, 19], []]
    assert [row.where.all() for row in rows] == [True, True, False]
    assert [row.status for row in rows] == ["labelled", "labelled", "unlabelled"]
    assert (rows[1].file, rows[1].line) == ("arguments-x.tsv", 3)
    assert notes == ["labels-x.tsv: 1 arguments have no line there"]


def test_a_byte_order_mark_crlf_and_columns_in_another_order_are_read(tmp_path):
    (tmp_path / "arguments-x.tsv").write_bytes(
        b"\xef\xbb\xbfPremise\tStance\tPart\tArgument ID\tConclusion\r\n"
        b"it helps\tagainst\tmain\tA1\tWe should\r\n\r\n"
    )
    rows, rejects, notes = valueeval.read_file(tmp_path / "arguments-x.tsv")
    assert (rows[0].response, rows[0].prompt) == ("it helps", "against: We should")
    assert not rejects
    assert notes[0] == "arguments-x.tsv: columns that are not used: Part"
    assert (
        notes[1] == "labels-x.tsv: does not exist, so none of its arguments has a label"
    )


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"A1\tother\tagainst\tx\n", r":3: Argument ID: 'A1' stands in line 2 already"),
        (b"A2\tc\tmaybe\tx\n", ":3: Stance: is 'maybe'; it should be in favor of or"),
        (b"A2\tc\tagainst\t \n", ":3: Premise: is empty"),
        (b"A2\t\tagainst\tx\n", ":3: Conclusion: is empty"),
        (b"A2\tc\tagainst\n", ":3: line: has 3 columns; the header has 4"),
        (b"A2\tc\tagainst\tx\ty\n", ":3: line: has 5 columns; the header has 4"),
        (b"A2\tc\tagainst\t\xff\n", r":3: line: is not UTF-8 \(byte 13\)"),
    ],
)
def test_a_line_that_is_no_argument_is_set_aside(line, said, tmp_path):
    path = tmp_path / "arguments-x.tsv"
    path.write_bytes(HEADER.encode() + b"A1\tc\tagainst\tx\n" + line)
    rows, rejects, _ = valueeval.read_file(path)
    assert len(rows) == 1
    with pytest.raises(ValueError, match=said):
        raise ValueError(str(rejects[0]))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (labels_line("A1", 2), ":3: Argument ID: 'A1' stands in line 2 already"),
        (labels_line("B9"), ":3: Argument ID: 'B9' is no argument of this split"),
        (labels_line("A2").replace("\t0", "\t2", 1), ":3: Self-direction: thought: is"),
        (labels_line("A2").replace("\t0", "", 1), ":3: line: has 20 columns"),
    ],
)
def test_a_line_that_is_no_label_is_set_aside(line, said, tmp_path):
    (tmp_path / "arguments-x.tsv").write_text(
        HEADER + "A1\tc\tagainst\tx\nA2\tc\tagainst\tx\n"
    )
    (tmp_path / "labels-x.tsv").write_text(LABELS_HEADER + labels_line("A1") + line)
    rows, rejects, _ = valueeval.read_file(tmp_path / "arguments-x.tsv")
    assert [row.where.any() for row in rows] == [True, False]
    assert said in str(rejects[0])


def test_labels_of_an_argument_that_was_set_aside_are_no_second_reject(tmp_path):
    (tmp_path / "arguments-x.tsv").write_text(
        HEADER + "A1\tc\tagainst\tx\nA2\tc\tmaybe\tx\n"
    )
    (tmp_path / "labels-x.tsv").write_text(
        LABELS_HEADER + labels_line("A1") + labels_line("A2")
    )
    _, rejects, _ = valueeval.read_file(tmp_path / "arguments-x.tsv")
    assert [reject.field for reject in rejects] == ["Stance"]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("arguments-x.tsv", "", "arguments-x.tsv: the file is empty"),
        ("arguments-x.tsv", "Argument ID\tStance\n", "lacks Conclusion, Premise"),
        ("arguments-x.tsv", "Stance\t" + HEADER, "has Stance more than once"),
        ("labels-x.tsv", "Argument ID\tFace\n", "lacks Self-direction: thought"),
        ("other.tsv", HEADER, "should be named arguments-SPLIT.tsv"),
    ],
)
def test_a_file_that_is_another_is_refused(name, text, said, tmp_path):
    (tmp_path / "arguments-x.tsv").write_text(HEADER + "A1\tc\tagainst\tx\n")
    (tmp_path / name).write_text(text)
    path = tmp_path / (name if name == "other.tsv" else "arguments-x.tsv")
    with pytest.raises(ValueError, match=said):
        valueeval.read_file(path)


def test_a_folder_has_its_splits_and_says_what_it_left(tmp_path):
    made = folder(tmp_path)
    (made / "arguments-test-more.tsv").write_text(HEADER)
    found = source.of_path(str(made))
    assert found == source.ValueEval(str(made))
    corpus = source.read_valueeval(found)
    sizes = {name: len(rows) for name, rows in corpus.rows.items()}
    assert sizes == {"train": 40, "dev": 12, "test": 5}
    assert not any(row.where.any() for row in corpus.rows["test"])
    assert "left alone (1): arguments-test-more.tsv" in corpus.notes
    labels, where = source.label_arrays(corpus.rows["dev"])
    assert labels.shape == where.shape == (12, 20)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda made: (made / "labels-validation.tsv").unlink(), "to use as dev"),
        (lambda made: (made / "arguments-training.tsv").unlink(), "to use as train"),
    ],
)
def test_a_folder_without_labels_is_refused(spoil, said, tmp_path):
    made = folder(tmp_path)
    spoil(made)
    with pytest.raises(ValueError, match=said):
        source.read_valueeval(source.ValueEval(str(made)))


def test_a_path_that_is_no_folder_is_refused(tmp_path):
    made = folder(tmp_path)
    with pytest.raises(ValueError, match="is a file; give its folder"):
        source.read_valueeval(source.of_path(str(made / "arguments-test.tsv")))
    with pytest.raises(FileNotFoundError, match="does not exist; give a folder"):
        source.read_valueeval(source.ValueEval(str(tmp_path / "none")))


def test_predictions_are_written_as_labels_are_read(tmp_path):
    there = np.random.default_rng(0).random((3, 20)) < 0.5
    valueeval.write_labels(tmp_path / "out.tsv", ["A", "B", "C"], there)
    found, rejects = valueeval.read_labels(tmp_path / "out.tsv")
    assert not rejects
    np.testing.assert_array_equal(np.stack(list(found.values())), there)
    with pytest.raises(
        ValueError, match=r"there has shape \(3, 20\); expected \[2, 20"
    ):
        valueeval.write_labels(tmp_path / "out.tsv", ["A", "B"], there)


def test_nineteen_categories_are_refined_values():
    assert sorted(valueeval.REFINED.values()) == sorted(values.REFINED)
    lost = set(valueeval.CATEGORIES) - set(valueeval.REFINED)
    assert lost == {"Universalism: objectivity"}
    assert tuple(LABELS_HEADER.rstrip("\n").split("\t")[1:]) == valueeval.CATEGORIES


def test_a_recipe_on_these_rows_has_twenty_values_of_two_classes(tmp_path):
    config = on_source(RECIPES["debug"][1], source.ValueEval("there"))
    assert config.evaluator.head.num_values == 20
    assert config.evaluator.link == "presence"
    assert config.value_names == valueeval.CATEGORIES
    save_config(tmp_path / "config.py", config)
    assert load_config(tmp_path / "config.py") == config
    assert on_source(RECIPES["debug"][1], source.Folder("x")).value_names == (
        values.BASIC
    )
    told = on_source(
        Config(evaluator=_with_head(QueryHead(values="definition"))), config.source
    )
    assert told.evaluator.head.num_values == 20


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Config(source=source.ValueEval("x")), "num_values is 10; it should"),
        (
            lambda: on_source(Config(loss=Loss(circumplex=0.1)), source.ValueEval("x")),
            "loss.circumplex is 0.1, which is about the ten basic values",
        ),
        (
            lambda: on_source(Config(leave_out=("Power",)), source.ValueEval("x")),
            "leave_out is .*the rows are those of ValueEval",
        ),
        (
            lambda: on_source(
                Config(evaluator=_with_head(HierarchicalHead(pool="mean"))),
                source.ValueEval("x"),
            ),
            "num_values is 20; it should be 10",
        ),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_heads_that_read_definitions_are_told_those_of_the_categories():
    config = on_source(
        Config(evaluator=_with_head(QueryHead(values="definition"))),
        source.ValueEval("there"),
    )
    tokenizer = PairTokenizer.train(list(valueeval.DEFINITIONS.values()), 300)
    told = prepare.fit_to_data(config, tokenizer).evaluator.head
    assert isinstance(told, QueryHead)
    face = tokenizer.pieces([f"Face: {valueeval.DEFINITIONS['Face']}"])[0]
    place = valueeval.CATEGORIES.index("Face")
    assert list(told.definitions[place][1:-1]) == list(face)
    assert len(told.definitions) == 20


def _with_head(head):
    evaluator = RECIPES["debug"][1].evaluator
    return type(evaluator)(evaluator.encoder, head)


def test_a_threshold_is_never_judged_on_what_it_was_fitted_on(tmp_path):
    corpus = source.read_valueeval(source.ValueEval(str(folder(tmp_path))))
    rows = corpus.rows["dev"]
    labels, _ = source.label_arrays(rows)
    probs = np.random.default_rng(0).random(labels.shape).astype(np.float32)
    there = script.cross_fitted("one cut", probs, rows)
    # Other labels of one conclusion change no decision on that conclusion.
    mine = np.array([row.conclusion == rows[0].conclusion for row in rows])
    for row in np.flatnonzero(mine):
        rows[row].labels[:] = 1 - rows[row].labels
    again = script.cross_fitted("one cut", probs, rows)
    np.testing.assert_array_equal(there[mine], again[mine])
    alone = [row for row, is_mine in zip(rows, mine, strict=True) if is_mine]
    with pytest.raises(ValueError, match="there should be two at least"):
        script.cross_fitted("one cut", probs[mine], alone)


def test_validation_given_by_its_path_is_no_other_file(tmp_path, capsys):
    files = folder(tmp_path)
    corpus = source.read_valueeval(source.ValueEval(str(files)))
    held = script.held_out(corpus, "dev", str(files))
    assert held.rows is held.fitted_on  # so each is judged under others' thresholds
    assert (
        "of the 12 arguments that thresholds are fitted on" in capsys.readouterr().out
    )
    lines = (files / "arguments-validation.tsv").read_text().splitlines(keepends=True)
    few = tmp_path / "few"
    few.mkdir()
    (few / "arguments-few.tsv").write_text("".join(lines[:6]))
    labels = (files / "labels-validation.tsv").read_text().splitlines(keepends=True)
    (few / "labels-few.tsv").write_text("".join(labels[:6]))
    held = script.held_out(corpus, "dev", str(few / "arguments-few.tsv"))
    assert (len(held.rows), len(held.fitted_on)) == (5, 7)
    judged = {(row.prompt, row.response) for row in held.rows}
    assert not judged & {(row.prompt, row.response) for row in held.fitted_on}


def test_the_report_has_both_f1_and_pairs_resamples():
    rng = np.random.default_rng(0)
    labels = (rng.random((60, 3)) < 0.4).astype(np.float32)
    truth = presence.Truth(
        labels, np.ones((60, 3), bool), np.arange(60) // 4, ("a", "b", "c")
    )
    noisy = np.where(rng.random((60, 3)) < 0.2, 1 - labels, labels)
    good = presence.Predictions("good", noisy > 0, noisy)
    ones = presence.Predictions("ones", np.ones((60, 3), bool))
    found = presence.evaluate(good, truth)
    quick = presence.quick_figures(good.there, labels, truth.where)
    assert found["macro"]["mean_f1"] == pytest.approx(quick["macro_f1"])
    assert found["macro"]["official_f1"] == pytest.approx(quick["official_f1"])
    low, high = found["interval"]["official_f1"]
    assert low < found["macro"]["official_f1"] < high
    assert found["clusters"] == 15
    assert found["categories"]["a"]["support"] == labels[:, 0].sum()
    difference = presence.compare(good, ones, truth)["mean_f1"]
    assert 0 < difference["interval"][0] < difference["difference"]
    same = presence.compare(good, good, truth)["official_f1"]
    assert same == {"difference": 0.0, "interval": [0.0, 0.0]}
    assert np.isnan(presence.evaluate(ones, truth)["macro"]["auroc"])
    with pytest.raises(ValueError, match=r"short answers \(60, 2\) cells"):
        presence.evaluate(presence.Predictions("short", good.there[:, :2]), truth)
    with pytest.raises(ValueError, match="no cell is labelled"):
        presence.Truth(labels, truth.where & False, truth.cluster, truth.names)


def test_published_figures_are_marked_as_of_the_test_or_validation_arguments():
    title, _, body = presence.published_table()
    assert "recalled" in title
    assert "TEST" in title
    tested = [cells[1] for cells in body if cells[1]]
    assert tested == [".250", ".350", ".420", ".560"]
    assert all(bool(cells[1]) != bool(cells[2]) for cells in body)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the ValueEval'23 files are not here")
def test_the_released_files_are_read_whole_and_all_ones_is_the_known_floor():
    corpus = source.read_valueeval(source.ValueEval(str(SHARED)))
    sizes = {name: len(rows) for name, rows in corpus.rows.items()}
    assert sizes == {"train": 5393, "dev": 1896, "test": 1576}
    assert not corpus.rejects
    labels, where = source.label_arrays(corpus.rows["dev"])
    found = presence.quick_figures(np.ones(labels.shape, bool), labels, where)
    assert round(found["official_f1"], 3) == 0.287
