# SPDX-License-Identifier: Apache-2.0
"""What the families of encoders differ in, as tables over Hugging Face's keys.

"deberta" is DeBERTa v1; "deberta-v2" is v2, v3 and mDeBERTa; "bert" is BERT, which here
is the same encoder with absolute positions and without relative ones.
"""

from typing import Any, Literal

Family = Literal["deberta", "deberta-v2", "bert"]
Activation = Literal[
    "gelu",
    "gelu_10",
    "gelu_accurate",
    "gelu_fast",
    "gelu_new",
    "gelu_python",
    "gelu_python_tanh",
    "gelu_pytorch_tanh",
    "hardswish",
    "laplace",
    "leaky_relu",
    "linear",
    "mish",
    "quick_gelu",
    "relu",
    "relu2",
    "relu6",
    "sigmoid",
    "silu",
    "sqrtsoftplus",
    "swish",
    "tanh",
]
"""transformers' activations but for those with parameters of their own."""

_ALL_OFF: dict[str, Any] = {
    "relative_attention": False,
    "pos_att_type": (),
    "position_biased_input": True,
}
DEFAULTS: dict[str, dict[str, Any]] = {
    "deberta": _ALL_OFF | {"vocab_size": 50265},
    "deberta-v2": _ALL_OFF
    | {
        "vocab_size": 128100,
        "hidden_size": 1536,
        "num_hidden_layers": 24,
        "num_attention_heads": 24,
        "intermediate_size": 6144,
        "position_buckets": -1,
        "share_att_key": False,
        "norm_rel_ebd": "none",
    },
    "bert": {"vocab_size": 30522, "type_vocab_size": 2, "layer_norm_eps": 1e-12},
}
"""Where a key missing from `config.json` means something else than our default."""

_NO_V2: dict[str, Any] = {
    "position_buckets": -1,
    "share_att_key": False,
    "norm_rel_ebd": "none",
    "attention_head_size": None,
    "conv_kernel_size": 0,
    "conv_act": "tanh",
    "conv_groups": 1,
}
FIXED: dict[str, dict[str, Any]] = {
    "deberta": _NO_V2,
    "deberta-v2": {},
    "bert": _NO_V2
    | _ALL_OFF
    | {
        "max_relative_positions": -1,
        "embedding_size": None,
        "pooler_dropout": 0.0,
        "pooler_hidden_act": "tanh",
    },
}
"""Fields that a family does not have, at the one setting it computes with."""

HARMLESS_KEYS = frozenset(
    """
    _attn_implementation_autoset _commit_hash _name_or_path _num_labels architectures
    attn_implementation bad_words_ids begin_suppress_tokens bos_token_id
    chunk_size_feed_forward classifier_dropout cls_dropout cross_attention_hidden_size
    decoder_start_token_id diversity_penalty do_sample dtype early_stopping
    encoder_no_repeat_ngram_size eos_token_id exponential_decay_length_penalty
    finetuning_task forced_bos_token_id forced_eos_token_id fulcra
    gradient_checkpointing id2label is_encoder_decoder label2id legacy length_penalty
    max_length min_length model_type name_or_path no_repeat_ngram_size num_beam_groups
    num_beams num_labels num_return_sequences output_attentions output_hidden_states
    output_past output_scores padding_idx pooler_fc_size pooler_num_attention_heads
    pooler_num_fc_layers pooler_size_per_head pooling prefix problem_type
    remove_invalid_values repetition_penalty return_dict return_dict_in_generate
    sep_token_id suppress_tokens task_specific_params temperature tf_legacy_loss
    tie_encoder_decoder tie_word_embeddings tokenizer_class top_k top_p torch_dtype
    torchscript transformers_version typical_p use_bfloat16 use_cache xla_device
    """.split()
)
"""Keys of a `config.json` that do not change the encoder's numbers."""

ONLY_IF: dict[str, Any] = {
    "directionality": "bidi",
    "pooler_hidden_size": "hidden_size",
    "pooler_type": "first_token_transform",
    "position_embedding_type": "absolute",
    "pruned_heads": {},
    "quantization_config": None,
    "talking_head": False,
}
"""Keys that are supported with one setting only; off or missing is always fine."""

DECODER_KEYS = ("is_decoder", "add_cross_attention")
"""Make a decoder of a BERT, which is refused; DeBERTa does not read them."""
