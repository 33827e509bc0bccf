# SPDX-License-Identifier: Apache-2.0
"""What may differ between recipes, by name; "query+items" is two at once.

A variant is a function from a configuration to another. One's own comes from a module
that the environment variable FULCRA_HEADS names:

    variants.register("mine", "my head", variants.with_head(MyHead()))
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from experiments.adapters import Adapter
from experiments.config import Config
from fulcra_jax import configs
from fulcra_jax.configs import Head

Variant = Callable[[Config], Config]


def with_head(head: Head, **fields: Any) -> Variant:
    """A variant with another head; `fields` are those of the evaluator."""

    def change(config: Config) -> Config:
        evaluator = dataclasses.replace(config.evaluator, head=head, **fields)
        return dataclasses.replace(config, evaluator=evaluator)

    return change


def with_link(link: str) -> Variant:
    """A variant with another link."""

    def change(config: Config) -> Config:
        evaluator = dataclasses.replace(config.evaluator, link=link)  # pyright: ignore
        return dataclasses.replace(config, evaluator=evaluator)

    return change


def with_loss(**fields: Any) -> Variant:
    """A variant with another loss."""
    return lambda config: dataclasses.replace(
        config, loss=dataclasses.replace(config.loss, **fields)
    )


def with_optimizer(**fields: Any) -> Variant:
    """A variant with another optimizer."""
    return lambda config: dataclasses.replace(
        config, optimizer=dataclasses.replace(config.optimizer, **fields)
    )


def with_text(**fields: Any) -> Variant:
    """A variant that reads texts otherwise."""
    return lambda config: dataclasses.replace(
        config, text=dataclasses.replace(config.text, **fields)
    )


def _prompted(config: Config) -> Config:
    """One text a row: about as many texts a step as the packed rows hold."""
    config = with_head(configs.PromptedHead())(config)
    lengths = tuple(n for n in (64, 96, 128, 192, 256) if n < config.text.max_length)
    text = dataclasses.replace(config.text, packed=False, ladder=lengths or (64,))
    return dataclasses.replace(config, text=text, batch_size=12)


def _with_items(config: Config) -> Config:
    """Item logits and their loss; the head's own kind stays."""
    head: Any = config.evaluator.head
    if "items" not in {field.name for field in dataclasses.fields(head)}:
        raise ValueError(
            f"heads: a {type(head).__name__} has no field items and judges none; items "
            "should be joined to another head."
        )
    head = dataclasses.replace(head, items=True)
    return with_loss(items=0.1)(with_head(head)(config))


_DEFINITION = "definition"
VARIANTS: dict[str, tuple[str, Variant]] = {
    "shared": (
        "one hidden layer and one projection for all values, mean of the tokens",
        with_head(configs.SharedHead(pool="mean")),
    ),
    "linear": (
        "one linear projection, mean of the tokens",
        with_head(configs.SharedHead(pool="mean", hidden=0)),
    ),
    "first": (
        "hidden layer on the first token, as Hugging Face's classifier",
        with_head(configs.SharedHead(pool="first")),
    ),
    "logsumexp": (
        "linear logits of every token, pooled smoothly",
        with_head(configs.SharedHead(pool="logsumexp", hidden=0)),
    ),
    "independent": (
        "a hidden layer of 64 for each value",
        with_head(configs.IndependentHead(pool="mean", hidden=64)),
    ),
    "film": (
        "one head for all values, scaled and shifted by a learned vector",
        with_head(configs.ConditionedHead()),
    ),
    "definition": (
        "the same by the encoded definition: also for values never seen",
        with_head(configs.ConditionedHead(values=_DEFINITION)),
    ),
    "query": (
        "each value asks the tokens by a learned vector",
        with_head(configs.QueryHead()),
    ),
    "query-definition": (
        "each value asks the tokens by its encoded definition",
        with_head(configs.QueryHead(values=_DEFINITION)),
    ),
    "tokens": (
        "a token for each value before the text",
        with_head(configs.TokenHead()),
    ),
    "tokens-apart": (
        "the same; the text and the other values do not see it",
        with_head(configs.TokenHead(sees="text")),
    ),
    "prompted": (
        "the released scheme: a pass for each value, its definition before the text",
        _prompted,
    ),
    "prompted-packed": (
        "all definitions behind the text in one pass",
        with_head(configs.PromptedHead(packed=True)),
    ),
    "hierarchical": (
        "54 items, basic values made of them",
        with_head(configs.HierarchicalHead(pool="mean")),
    ),
    "factored": (
        "relevance times sign",
        with_head(configs.FactoredHead(pool="mean")),
    ),
    "mixture": (
        "four experts, mixed for each value",
        with_head(configs.MixtureHead(pool="mean")),
    ),
    "ordinal": ("cumulative link in place of three classes", with_link("ordinal")),
    "tanh": ("one logit, tanh, squared error", with_link("tanh")),
    "unweighted": ("no class weights", with_loss(class_weights="none")),
    "balanced": ("class weights 1/frequency", with_loss(class_weights="balanced")),
    "focal": ("focal loss, gamma 2", with_loss(focal=2.0)),
    "circumplex": ("scores pulled to the circle, .3", with_loss(circumplex=0.3)),
    "items": ("the 54 items too, weight .1 each", _with_items),
    "teacher": ("the official scores too, weight .5", with_loss(teacher=0.5)),
    "teacher-soft": (
        "the same as soft targets",
        with_loss(teacher=0.5, teacher_kind="soft"),
    ),
    "smoothing": ("label smoothing .1", with_loss(label_smoothing=0.1)),
    "one-rate": ("one learning rate for all layers", with_optimizer(layer_decay=1.0)),
    "lora": (
        "all layers by matrices of rank 8 only, at two and a half times the rate",
        lambda config: dataclasses.replace(
            with_optimizer(peak_lr=2.5 * config.optimizer.peak_lr, freeze="")(config),
            adapter=Adapter(rank=8),
        ),
    ),
    "half-rate": (
        "half the learning rate",
        lambda config: with_optimizer(peak_lr=config.optimizer.peak_lr / 2)(config),
    ),
    "unfrozen": (
        "all layers trained, at half the learning rate",
        lambda config: with_optimizer(freeze="", peak_lr=config.optimizer.peak_lr / 2)(
            config
        ),
    ),
    "frozen": (
        "the encoder as it was: the head alone is trained",
        with_optimizer(freeze="encoder/.*"),
    ),
    "head-rate": (
        "the head at the encoder's learning rate in place of five times it",
        with_optimizer(head_rate=1.0),
    ),
    "long-average": (
        "an average of the parameters over about 100 steps in place of 30",
        with_optimizer(average=0.99),
    ),
    "no-average": ("the last parameters, not their average", with_optimizer(average=0)),
    "short": ("96 tokens: what screening uses", with_text(max_length=96)),
    "long": ("192 tokens", with_text(max_length=192)),
}
"""Name -> (what it is, the change)."""

SCREENED = (
    "shared", "linear", "first", "logsumexp", "independent", "film", "definition",
    "query", "query-definition", "tokens", "tokens-apart", "prompted-packed",
    "hierarchical", "factored", "mixture", "shared+ordinal", "shared+tanh",
    "shared+unweighted", "shared+balanced", "shared+focal", "shared+smoothing",
    "shared+circumplex", "shared+items", "shared+teacher", "shared+one-rate",
    "shared+head-rate", "shared+no-average", "shared+unfrozen", "shared+frozen",
    "shared+half-rate",
)  # fmt: skip
"""What the screening tries, one factor at a time."""


def register(name: str, text: str, change: Variant) -> None:
    """Adds a variant.

    Raises:
      ValueError: if the name is taken, or has "+", "@" or a blank in it.
    """
    if name in VARIANTS or set(name) & set("+@ /") or not name:
        raise ValueError(
            f"variants.register: {name!r} should be a name that is not taken, without "
            "'+', '@', '/' and blanks."
        )
    VARIANTS[name] = (text, change)


def listed(base: Config) -> str:
    """All variants, one a line: heads with the class they take, then what is joined to
    one by "+"."""
    lines = {True: ["heads:"], False: ["", 'joined to a head by "+":']}
    for name, (text, change) in VARIANTS.items():
        try:
            head: Any = change(base).evaluator.head
        except ValueError:  # it needs another head than the base's
            head = base.evaluator.head
        own = name == "shared" or _but_items(head) != _but_items(base.evaluator.head)
        kind = f" [{type(head).__name__}]" if own else ""
        lines[own].append(f"  {name:18} {text}{kind}")
    return "\n".join(lines[True] + lines[False])


def _but_items(head: Any) -> tuple[Any, ...]:
    """What makes a head another, its items aside."""
    names = [f.name for f in dataclasses.fields(head) if f.name != "items"]
    return type(head), *(getattr(head, name) for name in names)


def is_known(recipe: str) -> bool:
    """Whether all variants of a recipe are known here."""
    return all(name in VARIANTS for name in recipe.split("+"))


def apply(config: Config, recipe: str) -> Config:
    """The configuration changed by the variants of a recipe, from left to right.

    Raises:
      KeyError: if one is unknown; the message lists the known.
      ValueError: if the loss counts items that the head does not judge.
    """
    for name in recipe.split("+"):
        if name not in VARIANTS:
            raise KeyError(
                f"heads: the variant {name!r} is unknown; known are: "
                f"{', '.join(VARIANTS)}."
            )
        config = VARIANTS[name][1](config)
    head: Any = config.evaluator.head
    if config.loss.items and not getattr(head, "items", False):
        raise ValueError(
            f"heads: {recipe} counts items in the loss, but its {type(head).__name__} "
            "judges none; items should stand behind the name of a head that can."
        )
    return config
