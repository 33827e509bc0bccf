# SPDX-License-Identifier: Apache-2.0
"""The policy of a run of google-tunix: a checkpoint, or a small random model."""

import contextlib
import dataclasses
import pathlib
from typing import Any, NamedTuple

import jax
from flax import nnx

from experiments.align.tunix_settings import Arguments
from experiments.toy_lm import texts
from fulcra_jax.alignment import PolicyTokenizer
from fulcra_jax.data.tokenizer import PairTokenizer

_LORA = ".*(q|k|v|o|gate|up|down)_proj"


class Policy(NamedTuple):
    """What answers, and what is trained."""

    actor: Any
    """An `nnx.Module`: what is trained."""
    start: Any
    """What was begun with; it stays. With LoRA it shares its weights with the actor."""
    tokenizer: PolicyTokenizer
    ends: tuple[int, ...]
    """Tokens that end an answer."""


def policy_of(
    adapter: Any, arguments: Arguments, mesh: Any, stack: contextlib.ExitStack
) -> Policy:
    """The policy that is asked for.

    Args:
      adapter: `fulcra_jax.alignment.tunix`.
      arguments: of the run.
      mesh: where the parameters go.
      stack: holds what has to last as long as the model is used.

    Raises:
      FileNotFoundError: if there is no such model.
      KeyError: if its family is not known.
      ValueError: if it cannot be loaded as it is meant.
    """
    if arguments.model:
        model, tokenizer, ends = _of_hub(adapter, arguments, mesh, stack)
    else:
        model, tokenizer = _random(adapter, arguments, mesh)
        ends = ()
    if not arguments.lora_rank:
        return Policy(model, nnx.clone(model), tokenizer, ends)
    actor = _with_lora(model, arguments)
    adapter.place(actor, mesh)
    return Policy(actor, model, tokenizer, ends)


def _random(
    adapter: Any, arguments: Arguments, mesh: Any
) -> tuple[nnx.Module, PolicyTokenizer]:
    pairs = texts.dialogues(arguments.seed, 1000, "train")
    plain = PairTokenizer.train(
        [text for pair in pairs for text in pair], arguments.tiny.vocab_size
    )
    fields = dataclasses.asdict(arguments.tiny) | {"vocab_size": plain.vocab_size}
    model = adapter.random_qwen3(**fields, seed=arguments.seed)
    adapter.place(model, mesh)
    return model, PolicyTokenizer(
        pieces=lambda text: plain.pieces([text])[0],
        text=plain.text,
        end_id=plain.end_id,
        pad_id_=plain.pad_id,
        before=(plain.start_id,),
        after=(plain.end_id,),
        prompt_length=arguments.prompt_length,
    )


def _of_hub(
    adapter: Any, arguments: Arguments, mesh: Any, stack: contextlib.ExitStack
) -> tuple[nnx.Module, PolicyTokenizer, tuple[int, ...]]:
    import transformers

    path = pathlib.Path(arguments.model)
    entries = adapter.read_config(path)
    tokenizer = PolicyTokenizer.of_hub(
        transformers.AutoTokenizer.from_pretrained(str(path), local_files_only=True),
        prompt_length=arguments.prompt_length,
        pad_token=arguments.pad_token,
    )
    ends = adapter.end_tokens(
        path, end_id=tokenizer.eos_id(), pad_id=tokenizer.pad_id()
    )
    model = adapter.load_policy(path, mesh=mesh)
    stack.enter_context(adapter.checkpoint_rope(entries))
    return model, tokenizer, ends


def _with_lora(model: Any, arguments: Arguments) -> Any:
    """The model with low-rank parts beside its weights, which it shares."""
    import qwix  # pyright: ignore[reportMissingImports]

    found = qwix.apply_lora_to_model(
        model,
        qwix.LoraProvider(
            module_path=_LORA,
            rank=arguments.lora_rank,
            alpha=2.0 * arguments.lora_rank,
        ),
        rngs=nnx.Rngs(arguments.seed),
        **model.get_model_input(),
    )
    if not jax.tree.leaves(nnx.state(found, nnx.LoRAParam)):
        raise ValueError("align tunix: the model has no projection that LoRA knows.")
    return found
