# SPDX-License-Identifier: Apache-2.0
"""Between texts and the tokens of a policy, as a rollout loop asks for them."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class PolicyTokenizer:
    """A tokenizer whose padding is no end, and whose prompts fit.

    Has the five methods that tunix asks for: encode, decode, bos_id, eos_id, pad_id.
    """

    pieces: Callable[[str], list[int]]
    """The ids of a text, without special tokens."""
    text: Callable[[Sequence[int]], str]
    """The text of ids, without special tokens."""
    end_id: int
    """What ends an answer."""
    pad_id_: int
    """What fills short rows; not `end_id`."""
    before: tuple[int, ...] = ()
    """Ids before a prompt."""
    after: tuple[int, ...] = ()
    """Ids between a prompt and its answer."""
    prompt_length: int = 64
    """Most tokens of a prompt, with `before` and `after`."""
    cut: bool = True
    """A longer prompt keeps its end; False refuses it."""

    def __post_init__(self) -> None:
        if self.pad_id_ == self.end_id:
            raise ValueError(
                f"policy_tokenizer.PolicyTokenizer: token {self.end_id} both pads and "
                "ends answers; a loop that leaves padding out of its loss would never "
                "teach a model to end. Name another token to pad with."
            )
        if self.prompt_length <= len(self.before) + len(self.after):
            raise ValueError(
                f"policy_tokenizer.PolicyTokenizer: prompt_length is "
                f"{self.prompt_length}; expected more than "
                f"{len(self.before) + len(self.after)}, the tokens around a prompt."
            )

    def encode(self, text: str) -> list[int]:
        """The ids of a prompt.

        Raises:
          ValueError: if it is longer than `prompt_length` and must not be cut.
        """
        plain = self.pieces(text)
        room = self.prompt_length - len(self.before) - len(self.after)
        if len(plain) > room and not self.cut:
            raise ValueError(
                f"policy_tokenizer.encode: a prompt has {len(plain)} tokens; expected "
                f"at most {room} (it begins {text[:40]!r})."
            )
        return [*self.before, *plain[-room:], *self.after]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of an answer."""
        return self.text(ids)

    def bos_id(self) -> int | None:
        """The first id of every prompt, where there is one."""
        return self.before[0] if self.before else None

    def eos_id(self) -> int:
        """The id that ends an answer."""
        return self.end_id

    def pad_id(self) -> int:
        """The id that fills short rows."""
        return self.pad_id_

    @classmethod
    def of_hub(
        cls, tokenizer: Any, *, prompt_length: int, pad_token: str = ""
    ) -> "PolicyTokenizer":
        """Wraps a tokenizer of transformers; prompts go through its chat template.

        Args:
          tokenizer: a `PreTrainedTokenizerBase`.
          prompt_length: most tokens of a prompt, those of the template included.
          pad_token: a token of the vocabulary to pad with; empty takes the
            tokenizer's own.

        Raises:
          ValueError: if there is no token to pad with that does not also end answers,
            or none that ends them.
        """
        caller = "policy_tokenizer.of_hub"
        if tokenizer.eos_token_id is None:
            raise ValueError(f"{caller}: the tokenizer has no token that ends answers.")
        pad_id = tokenizer.pad_token_id
        if pad_token:
            pad_id = tokenizer.get_vocab().get(pad_token)
            if pad_id is None:
                raise ValueError(
                    f"{caller}: {pad_token!r} is not in the vocabulary; name a token "
                    "that is there and that texts do not use."
                )
        if pad_id is None or pad_id == tokenizer.eos_token_id:
            raise ValueError(
                f"{caller}: the tokenizer pads with "
                f"{'nothing' if pad_id is None else 'the token that ends answers'}; "
                "name a token of its vocabulary to pad with that texts do not use."
            )
        starts = tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
        templated = bool(getattr(tokenizer, "chat_template", None))

        def pieces(text: str) -> list[int]:
            if templated:
                text = tokenizer.apply_chat_template(
                    [{"role": "user", "content": text}],
                    tokenize=False,
                    add_generation_prompt=True,
                    enable_thinking=False,
                )
            return tokenizer(text, add_special_tokens=False)["input_ids"]

        return cls(
            pieces=pieces,
            text=lambda ids: tokenizer.decode(list(ids), skip_special_tokens=True),
            end_id=tokenizer.eos_token_id,
            pad_id_=pad_id,
            before=(tokenizer.bos_token_id,) if starts and not templated else (),
            prompt_length=prompt_length,
            cut=not templated,
        )
