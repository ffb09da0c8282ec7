"""A GPT-2's config.json as our knobs, and back."""

import gpt2_files
import pytest
import tiny

from gptjax.config.config import from_flat
from gptjax.config.gpt2_json import json_of, knobs_of


def test_its_sizes_and_its_gelu_are_the_models():
    knobs, vocab_size = knobs_of(gpt2_files.config_json(n_positions=5))
    assert vocab_size == 11
    sizes = ("n_layer", "n_head", "n_embd", "block_size")
    assert [knobs[f"model.{name}"] for name in sizes] == [2, 3, 15, 5]
    assert (knobs["model.mlp"], knobs["model.bias"]) == ("gelu_tanh", True)
    from_flat(knobs, origin="test")


@pytest.mark.parametrize(
    ("word", "mlp"),
    [("gelu", "gelu"), ("gelu_pytorch_tanh", "gelu_tanh"), ("relu2", "relu2")],
)
def test_other_functions_that_we_have(word, mlp):
    assert knobs_of(gpt2_files.config_json(activation_function=word))[0]["model.mlp"] == mlp


def test_what_old_files_leave_out_is_as_transformers_has_it():
    names = ("model_type", "n_layer", "n_head", "n_embd", "n_positions", "vocab_size")
    old = {name: gpt2_files.config_json()[name] for name in names}
    assert knobs_of(old) == knobs_of(gpt2_files.config_json(n_inner=60))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "llama"}, "its model_type is 'llama', and must be 'gpt2'"),
        ({"n_layer": 0}, "its n_layer is 0, and must be an integer above 0"),
        ({"n_embd": "15"}, "its n_embd is '15'"),
        ({"n_head": True}, "its n_head is True"),
        ({"vocab_size": 2**40}, "its vocab_size is 1099511627776"),
        ({"n_positions": None}, "its n_positions is None"),
        ({"n_inner": 59}, "its n_inner is 59, and must be null or 60"),
        ({"activation_function": "silu"}, "its activation_function is 'silu', and none of gelu_"),
        ({"activation_function": ["gelu"]}, r"its activation_function is \['gelu'\]"),
        ({"layer_norm_epsilon": 1e-6}, "its layer_norm_epsilon is 1e-06, and must be 1e-05"),
        ({"scale_attn_weights": False}, "its scale_attn_weights is False"),
        ({"scale_attn_by_inverse_layer_idx": True}, "its scale_attn_by_inverse_layer_idx is True"),
        ({"add_cross_attention": True}, "its add_cross_attention is True"),
        ({"tie_word_embeddings": False}, "its tie_word_embeddings is False"),
    ],
)
def test_another_model_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        knobs_of(gpt2_files.config_json(**changes))


def test_a_list_is_no_config():
    with pytest.raises(ValueError, match="it is no JSON object"):
        knobs_of([1])


@pytest.mark.parametrize("mlp", ["gelu", "gelu_tanh", "relu2"])
def test_back_and_forth_nothing_changes(mlp):
    model = tiny.model_config(mlp=mlp, dropout=0.25)
    written = json_of(model, n_symbols=11, end_id=None)
    knobs, vocab_size = knobs_of(written)
    for name, value in knobs.items():
        assert getattr(model, name.removeprefix("model.")) == value
    assert vocab_size == 11 and written["resid_pdrop"] == 0.25
    assert written["eos_token_id"] is None
