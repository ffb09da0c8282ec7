"""The model: what it may see, how it starts, what dropout does."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import nnx

from gptjax.device import memory
from gptjax.model import gpt
from gptjax.model.layers import Dropout
from gptjax.system.errors import UserError
from gptjax.update import step


def fresh(**changes):
    graph, _, state = tiny.parts(tiny.model_config(**changes), tiny.config())
    return graph, state.params


def test_attention_is_causal():
    graph, params = fresh()
    ids_BT, _ = tiny.batch(2, 7)
    before = tiny.apply(graph, params, ids_BT)
    after = tiny.apply(graph, params, ids_BT.at[:, 4].set((ids_BT[:, 4] + 1) % tiny.VOCABULARY))
    np.testing.assert_allclose(before[:, :4], after[:, :4], atol=1e-6)
    assert np.abs(before[:, 4:] - after[:, 4:]).max() > 1e-3


def test_sequences_of_a_batch_do_not_mix():
    graph, params = fresh()
    ids_BT, _ = tiny.batch(3, 5)
    alone = tiny.apply(graph, params, ids_BT[1:2])
    np.testing.assert_allclose(
        tiny.apply(graph, params, ids_BT)[1], np.asarray(alone)[0], rtol=1e-5, atol=1e-6
    )


def test_position_matters():
    graph, params = fresh()
    logits_BTV = tiny.apply(graph, params, jnp.full((1, 5), 3))
    assert np.abs(np.diff(np.asarray(logits_BTV), axis=1)).min() > 0


def test_initial_loss_is_near_that_of_guessing():
    graph, params = fresh()
    x_BT, y_BT = tiny.batch(64, 7)
    loss = step.next_token_losses(tiny.apply(graph, params, x_BT), y_BT).mean()
    assert abs(float(loss) - math.log(tiny.VOCABULARY)) < 0.05


def test_initial_weights_have_nanogpts_spread():
    config = tiny.model_config(n_layer=3, n_embd=96, vocab_size=257)
    _, _, state = tiny.parts(config, tiny.config())
    for path, leaf in nnx.to_flat_state(state.params):
        values, name = np.asarray(leaf[...]), "/".join(map(str, path))
        if name.endswith("scale"):
            assert (values == 1).all()
        elif name.endswith("bias"):
            assert (values == 0).all()
        else:
            residual = "out/kernel" in name or "down/kernel" in name
            wanted = 0.02 / math.sqrt(2 * 3) if residual else 0.02
            assert abs(values.std() / wanted - 1) < 0.15, name
            assert abs(values.mean()) < 0.1 * wanted, name


def test_the_laptop_model_has_nanogpts_number_of_parameters():
    config = tiny.model_config(
        n_layer=4, n_head=4, n_embd=128, block_size=64, bias=False, vocab_size=65
    )
    state = jax.eval_shape(lambda: nnx.state(gpt.GPT(config, rngs=nnx.Rngs(0)), nnx.Param))
    # PARITY: 802,944 in matrices + 1,152 in layer norms - 8,192 position embeddings.
    assert sum(leaf.size for leaf in jax.tree.leaves(state)) == 802_944 + 1_152
    real = tiny.parts(config, tiny.config())[2].params
    assert gpt.n_parameters(real) == 795_904


@pytest.mark.parametrize("bias", [False, True])
def test_parameters_are_counted_without_making_them(bias):
    config = tiny.model_config(bias=bias, n_layer=3)
    state = jax.eval_shape(lambda: nnx.state(gpt.GPT(config, rngs=nnx.Rngs(0)), nnx.Param))
    assert gpt.expected_parameters(config) == sum(leaf.size for leaf in jax.tree.leaves(state))


def test_a_model_that_cannot_fit_is_refused_before_it_is_made():
    device = jax.devices()[0]
    memory.check_memory(tiny.model_config(), device)
    with pytest.raises(UserError, match=r"weights and optimizer need [0-9.]+ GiB; this cpu has"):
        memory.check_memory(tiny.model_config(n_layer=1000, n_embd=15 * 10_000), device)


@pytest.mark.parametrize("vocab_size", [1024, 1025])
def test_one_hot_and_indexed_embedding_agree(vocab_size):
    """Both ways of looking a token up give the row of the table, and its gradient."""
    graph, params = fresh(vocab_size=vocab_size)
    ids_BT = jnp.asarray([[0, 5, vocab_size - 1]])

    def first_layer_input(params):
        return nnx.merge(graph, params)._embedded(ids_BT, position_offset=0)

    table_VD = np.asarray(params["wte"]["embedding"][...])
    positions_TD = np.asarray(params["wpe"]["embedding"][...])[:3]
    np.testing.assert_allclose(
        first_layer_input(params), table_VD[np.asarray(ids_BT[0])] + positions_TD, rtol=1e-6
    )
    grads = jax.grad(lambda params: first_layer_input(params).sum())(params)
    rows_V = np.asarray(grads["wte"]["embedding"][...]).sum(axis=1)
    assert np.flatnonzero(rows_V).tolist() == [0, 5, vocab_size - 1]


def test_dropout_acts_in_training_only():
    graph, params = fresh(dropout=0.5)
    ids_BT, _ = tiny.batch(2, 7)
    still = tiny.apply(graph, params, ids_BT)
    plain, plain_params = fresh(dropout=0.0)
    np.testing.assert_array_equal(still, tiny.apply(plain, plain_params, ids_BT))
    one = tiny.apply(graph, params, ids_BT, jax.random.key(1))
    other = tiny.apply(graph, params, ids_BT, jax.random.key(2))
    assert np.abs(one - still).max() > 1e-2 and np.abs(one - other).max() > 1e-2
    np.testing.assert_array_equal(one, tiny.apply(graph, params, ids_BT, jax.random.key(1)))


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_rows_of_attention_change_nothing(dropout, x64):
    """However few queries attend at once, outputs, masks and gradients are those of all at once."""

    def loss(params, graph, ids_BT):
        rngs = nnx.Rngs(dropout=jax.random.key(3)) if dropout else None
        logits_BTV = nnx.merge(graph, params)(ids_BT, rngs=rngs)
        return (logits_BTV**2).mean(), logits_BTV

    wide = dict(dtype="float64", param_dtype="float64", dropout=dropout, n_layer=1)
    ids_BT, _ = tiny.batch(2, 7)
    _, params = fresh(**wide)
    params = jax.tree.map(lambda leaf: 20 * leaf, params)
    gradient = jax.jit(jax.grad(loss, has_aux=True), static_argnums=1)
    results = {
        rows: gradient(
            params, step.model_graph(tiny.model_config(attention_rows=rows, **wide)), ids_BT
        )
        for rows in (7, 2, 3, 0)
    }
    whole = results.pop(7)
    for found in results.values():
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(whole), strict=True):
            assert np.abs(b).max() > 1e-6
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-12 * np.abs(b).max())


def test_attention_dropout_draws_a_mask_for_every_weight():
    """Not one mask shared by heads or sequences; what stays is scaled up by 1/(1 - rate)."""
    B, H, K, T = 5, 3, 5, 7
    attention = gpt.Attention(tiny.model_config(dropout=0.4), rngs=nnx.Rngs(0))
    # Values of one, an identity on the way out: the output is the sum of the kept weights.
    D = H * K
    kernel = np.array(attention.qkv.kernel[...])
    kernel[:, 2 * D :] = 0
    attention.qkv.kernel[...] = jnp.asarray(kernel)
    attention.qkv.bias[...] = jnp.asarray(np.r_[np.zeros(2 * D), np.ones(D)], jnp.float32)
    attention.out.kernel[...] = jnp.eye(D)
    x_ND = jax.random.normal(jax.random.key(0), (B * T, D))
    graph, params = nnx.split(attention)

    @jax.jit
    def summed(key):
        rngs = None if key is None else nnx.Rngs(dropout=key)
        out_ND, _ = nnx.merge(graph, params)(
            x_ND, batch_size=B, rngs=rngs, cache=None, position_offset=0
        )
        return out_ND.reshape(B, T, H, K)[..., 0].transpose(0, 2, 1)  # BHT

    np.testing.assert_allclose(summed(None), 1, rtol=1e-5)
    kept = np.stack([summed(jax.random.key(i)) for i in range(300)])
    # The first token attends to itself alone: dropped entirely, or scaled by 1 / 0.6.
    first = kept[..., 0]
    assert set(np.unique(first.round(3))) == {0.0, np.float32(1 / 0.6).round(3)}
    assert abs((first == 0).mean() - 0.4) < 0.02
    agree = (first[:, 0, 0] == first[:, 0, 1]).mean(), (first[:, 0, 0] == first[:, 1, 0]).mean()
    # Independent masks agree with probability 0.4² + 0.6² = 0.52; a shared one always.
    assert max(agree) < 0.65
    assert abs(kept.mean() - 1) < 0.02


@pytest.mark.parametrize("generator", ["threefry", "philox"])
@pytest.mark.parametrize("rate", [0.2, 0.5, 0.03])
@pytest.mark.parametrize("shape", [(1009, 257), (101, 7, 3, 61)], ids=str)
def test_masks_of_dropout_are_random_bits_of_the_right_share(shape, rate, generator):
    """Shares of the whole, of each quarter of the words drawn, and of neighbours kept together."""
    dropout = Dropout(rate, generator)
    kept = np.asarray(dropout.mask(shape, nnx.Rngs(dropout=1)))
    assert kept.shape == shape and kept.dtype == bool

    def assert_share(part, wanted):
        error = math.sqrt(wanted * (1 - wanted) / part.size)
        assert abs(part.mean() - wanted) < 4.5 * error

    assert_share(kept, 1 - rate)
    for quarter in range(4):
        assert_share(kept[..., quarter::4], 1 - rate)
    for gap in (1, 2, 4):  # words, halves of words and counts next to each other
        assert_share(kept[..., gap:] & kept[..., :-gap], (1 - rate) ** 2)
    assert_share(kept[1:] & kept[:-1], (1 - rate) ** 2)
    other = np.asarray(dropout.mask(shape, nnx.Rngs(dropout=2)))
    assert_share(kept & other, (1 - rate) ** 2)
    np.testing.assert_array_equal(kept, dropout.mask(shape, nnx.Rngs(dropout=1)))


def test_a_rate_of_nearly_one_keeps_something():
    kept = np.asarray(Dropout(0.9999999, "threefry").mask((2_000, 500), nnx.Rngs(dropout=1)))
    assert 0 < kept.mean() < 1e-4


def test_bfloat16_compute_keeps_logits_in_float32():
    graph, params = fresh(dtype="bfloat16")
    full, full_params = fresh()
    ids_BT, _ = tiny.batch(2, 7)
    logits_BTV = tiny.apply(graph, params, ids_BT)
    assert logits_BTV.dtype == jnp.float32
    wanted = tiny.apply(full, full_params, ids_BT)
    error = np.abs(logits_BTV - wanted).max() / np.abs(wanted).max()
    assert 1e-6 < error < 2e-2
