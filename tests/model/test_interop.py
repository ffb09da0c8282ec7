"""nanoGPT's weights as our parameters: its own numbers come out, and the same bits go back."""

import gpt2_files
import jax
import jax.numpy as jnp
import nanogpt
import numpy as np
import pytest
import tiny
from flax import nnx

from gptjax.model import interop
from gptjax.model.gpt import GPT
from gptjax.update import step

# As nanoGPT's named_parameters() lists them, of one layer with biases.
NAMES = """
transformer.wte.weight transformer.wpe.weight
transformer.h.0.ln_1.weight transformer.h.0.ln_1.bias
transformer.h.0.attn.c_attn.weight transformer.h.0.attn.c_attn.bias
transformer.h.0.attn.c_proj.weight transformer.h.0.attn.c_proj.bias
transformer.h.0.ln_2.weight transformer.h.0.ln_2.bias
transformer.h.0.mlp.c_fc.weight transformer.h.0.mlp.c_fc.bias
transformer.h.0.mlp.c_proj.weight transformer.h.0.mlp.c_proj.bias
transformer.ln_f.weight transformer.ln_f.bias
""".split()


def weights_of(oracle, prefix="init"):
    """nanoGPT's own arrays, by its own names, as it would have saved them in float32."""
    found = {
        name.removeprefix(f"{prefix}/"): np.asarray(array, np.float32)
        for name, array in oracle.arrays.items()
        if name.startswith(f"{prefix}/")
    }
    return {**found, interop.HEAD: found[interop.TOKENS]}


@pytest.fixture(params=["nobias", "bias"])
def oracle(request):
    return nanogpt.Oracle(request.param, "float32")


def test_nanogpts_weights_give_nanogpts_logits(oracle):
    weights = interop.own_weights(weights_of(oracle), oracle.model_config)
    params = interop.to_params(weights, oracle.model_config)
    logits_BTV = tiny.apply(
        step.model_graph(oracle.model_config), params, jnp.asarray(oracle.arrays["x"][0])
    )
    nanogpt.assert_close(logits_BTV, oracle.arrays["logits0"], 2e-4)


def test_back_and_forth_no_bit_changes(oracle):
    weights = interop.own_weights(weights_of(oracle), oracle.model_config)
    found = interop.from_params(
        interop.to_params(weights, oracle.model_config), oracle.model_config
    )
    assert list(found) == list(weights) and len(found) == len(weights_of(oracle)) - 1
    for name, array in found.items():
        assert array.dtype == np.float32 and array.flags.c_contiguous
        assert array.tobytes() == np.ascontiguousarray(weights[name]).tobytes()


def test_parameters_are_all_named_and_in_nanogpts_order():
    config = tiny.model_config(n_layer=1)
    assert [name for name, _ in interop.shapes(config)] == NAMES
    without = [name for name in NAMES if not name.endswith("bias")]
    assert [name for name, _ in interop.shapes(tiny.model_config(n_layer=1, bias=False))] == without
    params = nnx.state(GPT(config, rngs=nnx.Rngs(0)), nnx.Param)
    found = interop.from_params(params, config)
    assert {name: array.shape for name, array in found.items()} == dict(interop.shapes(config))
    tiny.assert_same_bits(interop.to_params(found, config), params)
    assert len(jax.tree.leaves(params)) == len(NAMES)


def test_what_torch_compile_and_old_versions_add_is_left_out(oracle):
    plain = weights_of(oracle)
    found = {f"_orig_mod.{name}": array for name, array in plain.items()}
    found["_orig_mod.transformer.h.0.attn.bias"] = np.ones((1, 1, 5, 5), np.float32)
    config = oracle.model_config
    assert interop.own_weights(found, config).keys() == interop.own_weights(plain, config).keys()


def changed(name, change):
    return lambda weights: weights | {name: change(weights[name])}


def without(name):
    return lambda weights: {other: array for other, array in weights.items() if other != name}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without(NAMES[1]), f"it has no {NAMES[1]}"),
        (changed(NAMES[4], np.transpose), "c_attn.weight is float32 .* must be float32"),
        (changed(NAMES[0], np.float64), "wte.weight is float64 .*, and must be float32"),
        (changed(NAMES[0], lambda array: "text"), "its transformer.wte.weight is no tensor"),
        (changed(NAMES[0], lambda a: np.broadcast_to(a[:1, :1], (10**7, 10**7))), "10000000"),
        (changed(interop.HEAD, lambda array: array + 1), "lm_head.weight is not .*wte.weight"),
        (changed(interop.HEAD, lambda array: array[1:]), "lm_head.weight is float32"),
        (lambda weights: weights | {"rotary.freqs": np.ones(3)}, "'rotary.freqs', which nanoGPT"),
        (lambda weights: weights | {7: np.ones(3)}, "it has '7'"),
    ],
)
def test_what_is_not_nanogpts_is_refused(change, words):
    oracle = nanogpt.Oracle("nobias", "float32")
    with pytest.raises(ValueError, match=words):
        interop.own_weights(change(weights_of(oracle)), oracle.model_config)


def test_another_model_and_numbers_that_are_none_are_refused():
    oracle = nanogpt.Oracle("nobias", "float32")
    weights = interop.own_weights(weights_of(oracle), oracle.model_config)
    weights[NAMES[4]] = np.full_like(weights[NAMES[4]], np.nan)
    with pytest.raises(ValueError, match="c_attn.weight holds numbers that are not finite"):
        interop.to_params(weights, oracle.model_config)
    deep = tiny.model_config(
        n_layer=10**9,
        bias=False,
        **{
            name: oracle.settings[name] for name in ("n_embd", "n_head", "block_size", "vocab_size")
        },
    )
    with pytest.raises(ValueError, match=r"it has no transformer\.h\.\d+\.ln_1\.weight"):
        interop.own_weights(weights_of(oracle), deep)


def test_gpt2s_names_with_and_without_prefix_and_its_masks():
    config = tiny.model_config()
    bare = gpt2_files.tensors(**gpt2_files.SIZES)
    masks = {"h.0.attn.bias": 1, "transformer.h.1.attn.masked_bias": 1}
    found = interop.gpt2_names({**bare, **masks}, config)
    assert list(found) == [name for name, _ in interop.shapes(config)]
    assert all(f"transformer.{theirs}" == ours for ours, theirs in found.items())
    full = {**gpt2_files.with_prefix(bare), **masks, interop.HEAD: 1}
    assert interop.gpt2_names(full, config) == {name: name for name in [*found, interop.HEAD]}
    for name, shape in interop.shapes(config, is_conv1d=True):
        assert bare[found[name]].shape == shape
    for left_out, words in [
        ("h.1.ln_2.bias", "it has no h.1.ln_2.bias"),
        ("wte.weight", "it has no"),
    ]:
        with pytest.raises(ValueError, match=words):
            interop.gpt2_names(bare.keys() - {left_out}, config)
    with pytest.raises(ValueError, match="it has 'more', which a GPT-2 has not"):
        interop.gpt2_names({**bare, "more": 1}, config)


def test_gpt2s_layout_back_and_forth_changes_no_bit():
    config = tiny.model_config()
    weights = gpt2_files.with_prefix(gpt2_files.tensors(**gpt2_files.SIZES))
    params = interop.to_params(weights, config, is_conv1d=True)
    found = interop.from_params(params, config, is_conv1d=True)
    assert found.keys() == weights.keys()
    for name, array in found.items():
        assert array.tobytes() == weights[name].tobytes() and array.shape == weights[name].shape
    # nanoGPT would keep the matrices turned, and nothing else.
    for name, array in interop.from_params(params, config).items():
        is_table = name in (interop.TOKENS, interop.POSITIONS)
        np.testing.assert_array_equal(array, weights[name] if is_table else weights[name].T)
