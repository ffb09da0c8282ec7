"""The config.json that transformers keeps beside a GPT-2's weights, as our knobs, and back."""

from __future__ import annotations

from typing import Any

from gptjax.config.config import GPTConfig

# What a GPT-2 calls its sizes.
_SIZES = {
    "n_layer": "model.n_layer",
    "n_head": "model.n_head",
    "n_embd": "model.n_embd",
    "n_positions": "model.block_size",
}

# What it calls what we have for an MLP; of two words for one function the first is written.
_ACTIVATIONS = {
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu": "gelu",
    "relu2": "relu2",
}

# Settings under which it would compute something else than we do: the values that they must have,
# which are transformers' defaults.
_FIXED = {
    "layer_norm_epsilon": 1e-5,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
}

# What of our options every GPT-2 has, or has not.
ALWAYS = {
    "model.bias": True,
    "model.norm": "layernorm",
    "model.position": "learned",
    "model.qk_norm": False,
    "model.tie_embeddings": True,
    "model.token_shift": False,
}


def knobs_of(stored: Any) -> tuple[dict[str, Any], int]:
    """The knobs of a GPT-2 with such a config.json, and the size of its vocabulary.

    Raises:
      ValueError: if it is another model, or one that we have not.
    """
    if not isinstance(stored, dict):
        raise ValueError("it is no JSON object")
    if (kind := stored.get("model_type")) != "gpt2":
        raise ValueError(f"its model_type is {kind!r:.40}, and must be 'gpt2'")
    for name, wanted in _FIXED.items():
        if (value := stored.get(name, wanted)) != wanted:
            raise ValueError(f"its {name} is {value!r:.40}, and must be {wanted!r}")
    sizes = {knob: _size(stored, name) for name, knob in _SIZES.items()}
    n_inner, four_wide = stored.get("n_inner"), 4 * sizes["model.n_embd"]
    if n_inner not in (None, four_wide):
        raise ValueError(f"its n_inner is {n_inner!r:.40}, and must be null or {four_wide}")
    activation = stored.get("activation_function", "gelu_new")
    if activation not in list(_ACTIVATIONS):
        known = ", ".join(_ACTIVATIONS)
        raise ValueError(f"its activation_function is {activation!r:.40}, and none of {known}")
    knobs = {**sizes, **ALWAYS, "model.mlp": _ACTIVATIONS[activation]}
    return knobs, _size(stored, "vocab_size")


def _size(stored: dict[str, Any], name: str) -> int:
    value = stored.get(name)
    if type(value) is not int or not 0 < value < 2**31:
        raise ValueError(f"its {name} is {value!r:.40}, and must be an integer above 0")
    return value


def json_of(model: GPTConfig, *, n_symbols: int, end_id: int | None) -> dict[str, Any]:
    """The config.json of a model with what `ALWAYS` says, its vocabulary without its padding.

    `end_id` ends a text; None: nothing does.
    """
    words = {knob: word for word, knob in reversed(_ACTIVATIONS.items())}
    return {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "n_layer": model.n_layer,
        "n_head": model.n_head,
        "n_embd": model.n_embd,
        "n_inner": None,
        "n_positions": model.block_size,
        "n_ctx": model.block_size,
        "vocab_size": n_symbols,
        "activation_function": words[model.mlp],
        **dict.fromkeys(("embd_pdrop", "resid_pdrop", "attn_pdrop"), model.dropout),
        **_FIXED,
        "bos_token_id": end_id,
        "eos_token_id": end_id,
        "torch_dtype": "float32",
    }
