# SPDX-License-Identifier: Apache-2.0
"""What an experiment is, as data: the dataclasses and the recipes."""

import ast
import dataclasses
import pathlib
from typing import Any, Literal

from fulcra_jax import catalogue, values
from fulcra_jax.configs import DebertaConfig, EvaluatorConfig, SharedHead
from fulcra_jax.data.rows import Policy
from fulcra_jax.data.source import Embedded, Folder, Release
from fulcra_jax.training.optimizer import Optimizer


@dataclasses.dataclass(frozen=True)
class Text:
    """How dialogues become tokens."""

    max_length: int = 512
    """Most tokens of prompt and response together; the prompt is cut first."""
    tokenizer: str = ""
    """A Hugging Face tokenizer directory; empty takes the pretrained encoder's, or
    trains one on the training rows."""
    vocab_size: int = 8000
    """Pieces of a tokenizer trained here."""
    token_dropout: float = 0.0
    """Chance of a training token to be replaced by [MASK]."""
    ladder: tuple[int, ...] = (64, 128, 256, 512)
    """Lengths that batches are padded to; each is compiled once."""

    def __post_init__(self) -> None:
        if not 8 <= self.max_length <= 65536:
            raise ValueError(
                f"config.Text: max_length is {self.max_length}; it should be in [8, "
                "65536]."
            )
        if not 0.0 <= self.token_dropout < 1.0:
            raise ValueError(
                f"config.Text: token_dropout is {self.token_dropout}; it should be in "
                "[0, 1)."
            )
        if (
            list(self.ladder) != sorted(set(self.ladder))
            or min(self.ladder, default=0) < 1
        ):
            raise ValueError(
                f"config.Text: ladder is {self.ladder}; it should be ascending "
                "positive lengths."
            )


@dataclasses.dataclass(frozen=True)
class Loss:
    """What is minimised; which form follows from the evaluator's link."""

    class_weights: Literal["none", "sqrt"] = "none"
    """sqrt: a cell counts by 1/sqrt(frequency of its label), as "-1" is rare."""
    label_smoothing: float = 0.0
    """Share of the target spread over the three classes (link "ternary" only)."""

    def __post_init__(self) -> None:
        if self.class_weights not in ("none", "sqrt"):
            raise ValueError(
                f"config.Loss: class_weights is {self.class_weights!r}; it should be "
                "none or sqrt."
            )
        if not 0.0 <= self.label_smoothing < 1.0:
            raise ValueError(
                f"config.Loss: label_smoothing is {self.label_smoothing}; it should "
                "be in [0, 1)."
            )


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that decides the numbers a run produces."""

    source: Embedded | Folder | Release = Embedded()
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
    epochs: float = 10.0
    """Passes over the training rows."""
    steps: int = 0
    """Steps in all; 0 follows from `epochs`."""
    seed: int = 2023
    """Of the initial weights, the order of the rows and the dropout."""
    devices: int = 0
    """How many devices the batch is spread over; 0 means all."""
    eval_every: int = 0
    """Steps between looks at the dev split; 0 looks at the end only."""
    save_every: int = 100
    """Steps between checkpoints; the last step is always saved."""
    keep: int = 2
    """Checkpoints kept."""
    log_every: int = 10
    """Steps between lines of metrics.jsonl."""
    control: Literal["none", "shuffled-labels"] = "none"
    """shuffled-labels: the label vectors of the training rows are permuted. What such a
    run reaches on held-out rows owes nothing to the texts."""

    def __post_init__(self) -> None:
        for field, kind in (
            ("source", Embedded | Folder | Release),
            ("policy", Policy),
            ("text", Text),
            ("evaluator", EvaluatorConfig),
            ("pretrained", str),
            ("loss", Loss),
            ("optimizer", Optimizer),
            ("batch_size", int),
            ("steps", int),
            ("seed", int),
            ("devices", int),
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
        if self.evaluator.head.num_values != len(values.BASIC):
            raise ValueError(
                "config.Config: evaluator.head.num_values is "
                f"{self.evaluator.head.num_values}; it should be {len(values.BASIC)}."
            )
        for field, low, high in (
            ("batch_size", 1, 2**20),
            ("epochs", 0.0, 1e6),
            ("steps", 0, 10**9),
            ("seed", 0, 2**31 - 1),
            ("devices", 0, 2**20),
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
        ):
            if getattr(self, field) not in known:
                raise ValueError(
                    f"config.Config: {field} is {getattr(self, field)!r}; it should be "
                    f"one of: {', '.join(known)}."
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


def small_encoder(width: int, layers: int, **fields: Any) -> DebertaConfig:
    """An encoder to train from scratch: v3's attention, two segment types."""
    small = DebertaConfig(
        vocab_size=8000,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=max(1, width // 64),
        intermediate_size=4 * width,
        type_vocab_size=2,
        position_buckets=32,
    )
    return dataclasses.replace(small, **fields)


def _published(name: str) -> DebertaConfig:
    return dataclasses.replace(DebertaConfig(), **catalogue.checkpoint(name).config)


# One layer of attention and the convolution of v2 learn which words stand together in
# the minute that two CPU cores allow; pooled logits spare it learning where to look.
DEMO = Config(
    source=Embedded(train=5000),
    text=Text(max_length=192, vocab_size=4000, ladder=(64, 96, 192)),
    evaluator=EvaluatorConfig(
        small_encoder(
            128,
            1,
            conv_kernel_size=3,
            conv_act="gelu",
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        ),
        SharedHead(pool="logsumexp", hidden=0),
    ),
    optimizer=Optimizer(peak_lr=3e-3, weight_decay=0.01, clip_norm=1.0, b2=0.98),
    epochs=4.0,
    seed=0,
)

# A thousand rows: dropout of several kinds, and class weights, as "-1" is rare there.
# What real responses value is spread over the text: mean pooling was ahead on dev.
DEMO_REAL = dataclasses.replace(
    DEMO,
    text=Text(
        max_length=256, vocab_size=4000, token_dropout=0.1, ladder=(64, 128, 256)
    ),
    evaluator=EvaluatorConfig(
        dataclasses.replace(DEMO.evaluator.encoder, hidden_dropout_prob=0.2),
        SharedHead(pool="mean", hidden=0, dropout=0.2),
    ),
    loss=Loss(class_weights="sqrt"),
    optimizer=dataclasses.replace(DEMO.optimizer, peak_lr=2e-3),
    epochs=12.0,
)

# The reward of the alignment study: three times the rows, so that it is sure of more.
ALIGN_EVALUATOR = dataclasses.replace(DEMO, source=Embedded(train=15000))

# It only looks: other rows, seed, width and convolution than the one above.
ALIGN_SECOND = dataclasses.replace(
    DEMO,
    source=Embedded(train=12000, seed=1),
    evaluator=dataclasses.replace(
        DEMO.evaluator,
        encoder=dataclasses.replace(
            DEMO.evaluator.encoder,
            hidden_size=96,
            intermediate_size=384,
            conv_kernel_size=5,
        ),
    ),
    epochs=3.0,
    seed=1,
)

PAPER = Config(
    text=Text(max_length=512),
    evaluator=EvaluatorConfig(_published("microsoft/deberta-v3-large")),
    batch_size=32,
    epochs=10.0,
    seed=2023,
    eval_every=200,
    save_every=200,
)

RECIPES: dict[str, tuple[str, Config]] = {
    "demo": (
        "A small encoder from scratch on the embedded corpus; two CPU cores.",
        DEMO,
    ),
    "demo-real": (
        "The same from scratch on real rows: give them with --data.",
        DEMO_REAL,
    ),
    "align-evaluator": (
        "The evaluator that gives the reward in experiments.align toy.",
        ALIGN_EVALUATOR,
    ),
    "align-second": (
        "The evaluator that only looks in experiments.align toy.",
        ALIGN_SECOND,
    ),
    "debug": (
        "A tiny encoder for a few steps: does everything run?",
        dataclasses.replace(
            DEMO,
            source=Embedded(train=200, dev=60, test=60),
            evaluator=EvaluatorConfig(
                small_encoder(32, 1, num_attention_heads=2),
                SharedHead(pool="mean", hidden=0),
            ),
            text=Text(max_length=96, vocab_size=1000, ladder=(96,)),
            batch_size=16,
            steps=40,
            save_every=10,
            optimizer=Optimizer(peak_lr=1e-3, warmup_steps=5),
        ),
    ),
    "paper": (
        "The released hyperparameters, cross-entropy; one pass for ten values. Needs "
        "--pretrained DIR and an accelerator.",
        PAPER,
    ),
    "paper-tanh": (
        "The same with the released regression objective: one tanh output per value.",
        dataclasses.replace(
            PAPER,
            evaluator=dataclasses.replace(PAPER.evaluator, link="tanh"),
        ),
    ),
}

NEEDS_DATA = ("demo-real", "paper", "paper-tanh")
"""Recipes that make no sense on the embedded corpus."""
NEEDS_WEIGHTS = ("paper", "paper-tanh")
"""Recipes that make no sense from random weights."""

_CLASSES = {
    kind.__name__: kind
    for kind in (
        Config,
        Embedded,
        Folder,
        Release,
        Policy,
        Text,
        EvaluatorConfig,
        DebertaConfig,
        SharedHead,
        Loss,
        Optimizer,
    )
}


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
            name in _CLASSES
        ):
            entries = {str(word.arg): _build(word.value, path) for word in keywords}
            try:
                return _CLASSES[name](**entries)
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
