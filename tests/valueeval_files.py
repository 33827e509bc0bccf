# SPDX-License-Identifier: Apache-2.0
"""A tiny folder in the format of ValueEval'23."""

import pathlib

CATEGORIES = (
    "Self-direction: thought,Self-direction: action,Stimulation,Hedonism,Achievement,"
    "Power: dominance,Power: resources,Face,Security: personal,Security: societal,"
    "Tradition,Conformity: rules,Conformity: interpersonal,Humility,"
    "Benevolence: caring,Benevolence: dependability,Universalism: concern,"
    "Universalism: nature,Universalism: tolerance,Universalism: objectivity"
).split(",")
"""As they stand in the released files."""
LABELS_HEADER = "\t".join(["Argument ID", *CATEGORIES]) + "\n"
_WORDS = ("money", "nature", "family", "freedom", "order")
_TOPICS = ("nuclear power stations", "school uniforms", "wild animals in a circus")


def labels_line(name: str, *there: int) -> str:
    """A line of labels with ones in some columns."""
    return "\t".join([name, *("01"[i in there] for i in range(20))]) + "\n"


def folder(path: pathlib.Path) -> pathlib.Path:
    """40 training, 12 validation and 5 unlabelled test arguments; a premise's word says
    which category is there."""
    made = path / "valueeval"
    made.mkdir()
    for split, size in (("training", 40), ("validation", 12), ("test", 5)):
        arguments = ["Argument ID\tConclusion\tStance\tPremise\n"]
        labels = [LABELS_HEADER]
        for i in range(size):
            word, name = i % len(_WORDS), f"{split[0].upper()}{i}"
            topic = f"{_TOPICS[i % 3]} of {split} should be banned {'ab'[i % 2]}"
            stance = ("in favor of", "against")[i % 2]
            arguments.append(f"{name}\t{topic}\t{stance}\tit is {_WORDS[word]} {i}\n")
            labels.append(labels_line(name, 4 * word, 4 * word + i % 3))
        (made / f"arguments-{split}.tsv").write_text("".join(arguments))
        if split != "test":
            (made / f"labels-{split}.tsv").write_text("".join(labels))
    return made
