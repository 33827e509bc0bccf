# SPDX-License-Identifier: Apache-2.0
"""What an experiment is, as data; the recipes are in experiments/recipes.py."""

import ast
import dataclasses
import pathlib
from typing import Any, Literal, get_args, get_type_hints

from experiments.config_parts import Loss as Loss
from experiments.config_parts import Text as Text
from fulcra_jax import values
from fulcra_jax.configs import HEADS, DebertaConfig, EvaluatorConfig
from fulcra_jax.data import source as sources
from fulcra_jax.data.rows import Policy
from fulcra_jax.data.source import Embedded, Fold, Folder, Release, ValueEval
from fulcra_jax.models.deberta import Remat
from fulcra_jax.training.optimizer import Optimizer
from fulcra_jax.training.sharding import MeshShape

FIGURES = ("accuracy", "macro_f1", "f1_opposed", "f1_none", "f1_supported")
"""What a look at the dev split finds."""
PRESENCE_FIGURES = ("accuracy", "macro_f1", "official_f1", "precision", "recall")
"""What it finds of ValueEval'23: macro_f1 is the mean of the categories' F1."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that decides the numbers a run produces."""

    source: Embedded | Folder | Fold | Release | ValueEval = Embedded()
    """Where the rows come from; `--data PATH` is short for a folder."""
    policy: Policy = Policy()
    text: Text = Text()
    evaluator: EvaluatorConfig = EvaluatorConfig(DebertaConfig())
    """Encoder, head and link. With `pretrained`, the encoder's sizes come from
    there."""
    pretrained: str = ""
    """A Hugging Face directory with encoder weights; empty starts from random ones."""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the activations; parameters, softmax, norms and losses stay float32."""
    loss: Loss = Loss()
    optimizer: Optimizer = Optimizer()
    batch_size: int = 32
    """Rows of a batch, on all devices together."""
    epochs: float = 10.0
    """Passes over the training rows."""
    steps: int = 0
    """Steps in all; 0 follows from `epochs`."""
    seed: int = 2023
    """Of the initial weights, the order of the rows and the dropout."""
    mesh: MeshShape = MeshShape()
    """How the devices are used: copies of the model, parts of its state, of a layer."""
    accumulate: int = 1
    """Parts that a batch is computed in, one after the other: less memory."""
    remat: Remat = "none"
    """What the backward pass computes again instead of keeping it: dots is all of a
    layer but its matrix products, layer is all but its input."""
    eval_every: int = 0
    """Steps between looks at the dev split; 0 looks at the end only."""
    save_every: int = 100
    """Steps that a killed run does again at most; the last step is always saved."""
    keep: int = 2
    """Newest checkpoints kept."""
    keep_best: str = ""
    """A figure of the looks at dev, as macro_f1: the checkpoint with the highest is
    kept too, and exported as `model-best/` beside the last one."""
    writers: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Who is shown the figures besides metrics.jsonl."""
    log_every: int = 10
    """Steps between lines of metrics.jsonl (its fields: experiments/rundir.py)."""
    leave_out: tuple[str, ...] = ()
    """Values whose labels are not trained on, to see what a head says of a value that
    it knows by its definition only."""
    control: Literal["none", "shuffled-labels"] = "none"
    """shuffled-labels: the label vectors of the training rows are permuted. What such a
    run reaches on held-out rows owes nothing to the texts."""

    def __post_init__(self) -> None:
        for field, kind in (
            ("source", Embedded | Folder | Fold | Release | ValueEval),
            ("policy", Policy),
            ("text", Text),
            ("evaluator", EvaluatorConfig),
            ("pretrained", str),
            ("loss", Loss),
            ("optimizer", Optimizer),
            ("batch_size", int),
            ("steps", int),
            ("seed", int),
            ("mesh", MeshShape),
            ("accumulate", int),
            ("keep_best", str),
            ("writers", tuple),
            ("eval_every", int),
            ("save_every", int),
            ("keep", int),
            ("log_every", int),
        ):
            if not isinstance(getattr(self, field), kind):
                name = getattr(kind, "__name__", str(kind))
                raise ValueError(
                    f"config.Config: {field} is {getattr(self, field)!r:.60}; it "
                    f"should be a {name}."
                )
        if self.evaluator.head.num_values != len(self.value_names):
            raise ValueError(
                "config.Config: evaluator.head.num_values is "
                f"{self.evaluator.head.num_values}; it should be "
                f"{len(self.value_names)}."
            )
        for field, low, high in (
            ("batch_size", 1, 2**20),
            ("epochs", 0.0, 1e6),
            ("steps", 0, 10**9),
            ("seed", 0, 2**31 - 1),
            ("accumulate", 1, 2**16),
            ("eval_every", 0, 10**9),
            ("save_every", 1, 10**9),
            ("keep", 1, 1000),
            ("log_every", 1, 10**9),
        ):
            number = getattr(self, field)
            if not low <= number <= high:
                raise ValueError(
                    f"config.Config: {field} is {number}; it should be in [{low}, "
                    f"{high}]."
                )
        for field, known in (
            ("compute_dtype", ("float32", "bfloat16")),
            ("control", ("none", "shuffled-labels")),
            ("remat", get_args(Remat)),
            ("keep_best", ("", *self.figures)),
        ):
            if getattr(self, field) not in known:
                raise ValueError(
                    f"config.Config: {field} is {getattr(self, field)!r}; it should be "
                    f"one of: {', '.join(filter(None, known))}."
                )
        if isinstance(self.source, ValueEval):
            for field, told in (
                ("leave_out", self.leave_out),
                ("loss.circumplex", self.loss.circumplex),
                ("loss.items", self.loss.items),
                ("loss.teacher", self.loss.teacher),
            ):
                if told:
                    raise ValueError(
                        f"config.Config: {field} is {told}, which is about the ten "
                        "basic values, but the rows are those of ValueEval'23; it "
                        f"should be {'()' if field == 'leave_out' else 0}."
                    )
        for name in self.leave_out:
            if name not in values.BASIC:
                raise ValueError(
                    f"config.Config: leave_out has {name!r}; it should hold basic "
                    f"values: {', '.join(values.BASIC)}."
                )
        for name in self.writers:
            if name not in ("tensorboard", "wandb"):
                raise ValueError(
                    f"config.Config: writers has {name!r}; it should hold tensorboard "
                    "or wandb."
                )
        if self.keep_best and not self.eval_every:
            raise ValueError(
                f"config.Config: keep_best is {self.keep_best}, but eval_every is 0; "
                "give the steps between looks at dev."
            )
        if not self.epochs and not self.steps:
            raise ValueError(
                "config.Config: epochs and steps are both 0; one should not."
            )
        if self.policy.conflict == "mean" and self.loss.class_weights != "none":
            raise ValueError(
                "config.Config: policy.conflict mean gives fractional labels, which "
                "have no class weight; set loss.class_weights to none."
            )
        self.loss.check_link(self.evaluator.link)

    @property
    def value_names(self) -> tuple[str, ...]:
        """The values that the rows are labelled with, in the order of the logits."""
        return tuple(sources.definitions(self.source))

    @property
    def figures(self) -> tuple[str, ...]:
        """What a look at the dev split finds."""
        return PRESENCE_FIGURES if isinstance(self.source, ValueEval) else FIGURES

    @property
    def save_period(self) -> int:
        """Steps between the beginnings of two checkpoints.

        One is written beside the training. For the steps done again to be save_every at
        most, it begins earlier by a fifth, and by then it should be whole.
        """
        return self.save_every - self.save_every // 5


_CLASSES = {
    kind.__name__: kind
    for kind in (
        Config,
        Embedded,
        Folder,
        Fold,
        Release,
        ValueEval,
        Policy,
        Text,
        EvaluatorConfig,
        DebertaConfig,
        Loss,
        MeshShape,
        Optimizer,
    )
}


def on_source(config: Config, source: sources.Source) -> Config:
    """The configuration on rows of another source.

    Where that has other values, the head is of their number; ValueEval'23 has two
    classes, so the link is "presence" where the head can have it.
    """
    if not isinstance(source, ValueEval):
        return dataclasses.replace(config, source=source)
    evaluator = config.evaluator
    count = len(sources.definitions(source))
    head = dataclasses.replace(evaluator.head, num_values=count)
    link = "presence" if "presence" in head.links else "ternary"
    return dataclasses.replace(
        config,
        source=source,
        evaluator=dataclasses.replace(evaluator, head=head, link=link),
    )


def save_config(path: pathlib.Path, config: Config) -> None:
    """Writes the configuration as the Python expression that makes it."""
    path.write_text(repr(config) + "\n", encoding="utf-8")


def load_config(path: pathlib.Path) -> Config:
    """Reads what `save_config` wrote; nothing in the file is executed.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it is anything but nested calls of the configuration classes.
    """
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path), "eval")
    except (SyntaxError, UnicodeDecodeError, RecursionError, MemoryError) as error:
        raise ValueError(
            f"{path}: is no configuration ({type(error).__name__}: {error})."
        ) from None
    config = _build(tree.body, path)
    if not isinstance(config, Config):
        raise ValueError(f"{path}: holds a {type(config).__name__}, not a Config.")
    return config


def _build(node: ast.expr, path: pathlib.Path) -> Any:
    match node:
        case ast.Call(func=ast.Name(id=name), args=[], keywords=keywords) if (
            name in _CLASSES or name in HEADS
        ):
            kind = _CLASSES.get(name) or HEADS[name]
            entries = {str(word.arg): _build(word.value, path) for word in keywords}
            _check_plain(path, kind, entries)
            try:
                return kind(**entries)
            except (TypeError, AttributeError) as error:
                raise ValueError(f"{path}: {name}: {error}.") from None
        case ast.Constant(value=constant):
            return constant
        case ast.Tuple(elts=entries):
            return tuple(_build(entry, path) for entry in entries)
        case ast.UnaryOp(
            op=ast.USub(), operand=ast.Constant(value=int() | float() as n)
        ):
            return -n
    raise ValueError(
        f"{path}: line {node.lineno} holds {ast.unparse(node)!r:.60}, which is no "
        "part of a configuration."
    )


def _check_plain(path: pathlib.Path, made: type, entries: dict[str, Any]) -> None:
    """Raises ValueError if a text, a number or a truth value is of another kind."""
    name, hints = made.__name__, get_type_hints(made)
    plain = {bool: (bool,), int: (int,), float: (int, float), str: (str,)}
    for field, entry in entries.items():
        for kind, allowed in plain.items():
            if hints.get(field) is kind and type(entry) not in allowed:
                raise ValueError(
                    f"{path}: {name}: {field} is {entry!r:.60}; it should be a "
                    f"{kind.__name__}."
                )
