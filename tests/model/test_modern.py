"""The modern options of the model, each against a plain NumPy forward pass."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import nnx

from gptjax.config.config import default_config, validate
from gptjax.model import gpt, layers
from gptjax.update import optim, step

ONE_AT_A_TIME = [{name: value} for name, value in tiny.MODERN.items() if name != "zero_residual"]
ONE_AT_A_TIME.append({"mlp": "gelu_tanh"})


def drawn(**options):
    """(config, graph, weights far from their initial values)."""
    config = tiny.model_config(n_embd=18, bias=False, **options)
    graph, _, state = tiny.parts(config, tiny.config())
    rng = np.random.default_rng(0)
    return (
        config,
        graph,
        jax.tree.map(
            lambda leaf: jnp.asarray(0.5 * rng.normal(size=leaf.shape), jnp.float32), state.params
        ),
    )


def reference(config, params, ids_BT):
    """Logits of each token, one token and one head at a time, in float64."""
    weights = {
        "/".join(map(str, path)): np.asarray(leaf[...], np.float64)
        for path, leaf in nnx.to_flat_state(params)
    }
    D, H = config.n_embd, config.n_head
    K = D // H

    def rms(x):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6)

    def norm(x, name):
        if config.norm == "rmsnorm":
            return rms(x)
        centred = x - x.mean(-1, keepdims=True)
        scale = weights[f"{name}/scale"]
        return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * scale

    def read(x_TD):
        if not config.token_shift:
            return x_TD
        before = np.vstack([np.zeros(D), x_TD[:-1]])
        return np.hstack([before[:, : D // 2], x_TD[:, D // 2 :]])

    def turned(x_K, position):
        if config.position == "learned":
            return x_K
        pairs = x_K[: K // 2] + 1j * x_K[K // 2 :]
        pairs = pairs * np.exp(1j * position / 1000 ** (2 * np.arange(K // 2) / K))
        return np.concatenate([pairs.real, pairs.imag])

    def mlp(x_TD, block):
        h = x_TD @ weights[f"{block}/mlp/up/kernel"]
        if config.mlp == "relu2":
            h = np.maximum(h, 0) ** 2
        elif config.mlp == "gelu_tanh":
            h = h * 0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)))
        else:
            h = h * 0.5 * (1 + np.vectorize(math.erf)(h / math.sqrt(2)))
        return h @ weights[f"{block}/mlp/down/kernel"]

    def attention(x_TD, block):
        out = np.zeros_like(x_TD)
        qkv = x_TD @ weights[f"{block}/attention/qkv/kernel"]
        for head in range(H):
            q, k, v = (qkv[:, i * D + head * K :][:, :K] for i in range(3))
            sharpness = 1.0
            if config.qk_norm:
                q, k, sharpness = rms(q), rms(k), 1.2
            q = [turned(row, t) for t, row in enumerate(q)]
            k = [turned(row, t) for t, row in enumerate(k)]
            for t in range(len(x_TD)):
                scores = np.array([q[t] @ k[s] for s in range(t + 1)]) * sharpness / math.sqrt(K)
                shares = np.exp(scores - scores.max())
                out[t, head * K :][:K] = shares / shares.sum() @ v[: t + 1]
        return out @ weights[f"{block}/attention/out/kernel"]

    logits = []
    for ids_T in np.asarray(ids_BT):
        x = weights["wte/embedding"][ids_T]
        if config.position == "learned":
            x = x + weights["wpe/embedding"][: len(ids_T)]
        if config.norm == "rmsnorm":
            x = rms(x)
        for layer in range(config.n_layer):
            block = f"blocks/{layer}"
            x = x + attention(read(norm(x, f"{block}/ln_1")), block)
            x = x + mlp(read(norm(x, f"{block}/ln_2")), block)
        x = norm(x, "ln_f")
        tied = config.tie_embeddings
        logits.append(x @ (weights["wte/embedding"].T if tied else weights["head/kernel"]))
    return np.array(logits)


@pytest.mark.parametrize("options", [{}, *ONE_AT_A_TIME, tiny.MODERN], ids=lambda o: "+".join(o))
def test_logits_are_those_of_a_plain_reference(options):
    config, graph, params = drawn(**options)
    ids_BT, _ = tiny.batch(2, 7)
    found = tiny.apply(graph, params, ids_BT)
    np.testing.assert_allclose(found, reference(config, params, ids_BT), rtol=2e-3, atol=2e-4)


def test_attention_is_causal():
    _, graph, params = drawn(**tiny.MODERN)
    ids_BT, _ = tiny.batch(2, 7)
    before = tiny.apply(graph, params, ids_BT)
    after = tiny.apply(graph, params, ids_BT.at[:, 4].set((ids_BT[:, 4] + 1) % tiny.VOCABULARY))
    np.testing.assert_allclose(before[:, :4], after[:, :4], atol=1e-5)
    assert (np.abs(before[:, 4:] - after[:, 4:]).max(axis=(0, 2)) > 1e-3).all()


def test_rotated_products_depend_on_the_distance_only():
    q, k = jax.random.normal(jax.random.key(0), (2, 1, 1, 1, 6))

    def product(i, j):
        return float(jnp.sum(layers.apply_rotary(q, i) * layers.apply_rotary(k, j)))

    assert product(3, 1) == pytest.approx(product(13, 11), rel=1e-4)
    assert abs(product(3, 1) - product(3, 2)) > 1e-3


def test_blocks_add_nothing_at_first_and_every_symbol_is_as_likely():
    graph, _, state = tiny.parts(tiny.modern_config(), tiny.config())
    x_BT, y_BT = tiny.batch(16, 7)
    losses_BT = step.next_token_losses(tiny.apply(graph, state.params, x_BT), y_BT)
    np.testing.assert_allclose(losses_BT, math.log(tiny.VOCABULARY), atol=0.02)
    for path, leaf in nnx.to_flat_state(state.params):
        if path[-2] in ("out", "down"):
            assert not np.asarray(leaf[...]).any()


@pytest.mark.parametrize("options", [{}, *ONE_AT_A_TIME, tiny.MODERN], ids=lambda o: "+".join(o))
@pytest.mark.parametrize("bias", [False, True])
def test_parameters_are_counted_without_making_them(options, bias):
    config = tiny.model_config(**{"n_embd": 18, "bias": bias, **options})
    params = jax.eval_shape(lambda: nnx.state(gpt.GPT(config, rngs=nnx.Rngs(0)), nnx.Param))
    n_all = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert gpt.expected_parameters(config) == n_all
    n_positions = 7 * 18 if config.position == "learned" else 0
    assert gpt.n_parameters(params) == n_all - n_positions


def test_the_linear_schedule_is_flat_then_falls_to_min_lr():
    config = default_config()
    config.optim.update(schedule="linear", warmup_iters=0, learning_rate=1.0, min_lr=0.1)
    config.optim.decay_share, config.train.max_iters = 0.5, 20
    validate(config)
    rates = [float(optim.learning_rate(config)(jnp.asarray(i, jnp.int32))) for i in range(25)]
    np.testing.assert_allclose(rates[:11], 1.0, rtol=1e-6)
    np.testing.assert_allclose(np.diff(rates[10:21]), -0.09, rtol=1e-4)
    np.testing.assert_allclose(rates[20:], 0.1, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_modern_model_learns_one_batch(dtype):
    settings = tiny.config(optim__name="muon", optim__learning_rate=1e-2, train__max_iters=60)
    graph, tx, state = tiny.parts(tiny.modern_config(dtype=dtype, n_embd=30), settings)
    x_ABT, y_ABT = tiny.batch(1, 6, 7)
    one = jax.jit(lambda state: step.train_step(graph, tx, None, state, x_ABT, y_ABT))
    for _ in range(60):
        state, metrics = one(state)
    assert float(metrics["loss"]) < 0.1
