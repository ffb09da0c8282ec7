"""Which attention a device computes with, and that the fused one is asked for the right thing."""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from gptjax.device import kernels
from gptjax.model import attention
from gptjax.system.errors import UserError
from gptjax.update import step


def card(capability="9.0", platform="gpu"):
    """A device that is none: to be looked at, not to compute with."""
    return SimpleNamespace(platform=platform, compute_capability=capability)


@pytest.fixture
def trial(monkeypatch):
    """Says how a trial of the fused kernel ends, in place of one."""
    return lambda reason: monkeypatch.setattr(kernels, "_trial", lambda *given: reason)


@pytest.fixture
def without_cudnn(monkeypatch):
    """Computes what is asked of cuDNN by XLA, for its mathematics' sake."""
    plain = jax.nn.dot_product_attention

    def replaced(*arrays, implementation, **settings):
        assert implementation == "cudnn"
        return plain(*arrays, implementation="xla", **settings)

    monkeypatch.setattr(jax.nn, "dot_product_attention", replaced)


FITTING = dict(dtype="bfloat16", n_head=2, n_embd=32)


def test_the_fused_kernel_is_used_where_it_was_tried(trial):
    trial("")
    chosen = kernels.choose_attention(tiny.model_config(**FITTING, attention="auto"), card())
    assert chosen.updates == chosen.evaluations == "cudnn" and "agrees" in chosen.why


def test_with_dropout_only_evaluations_use_it(trial):
    trial("")
    model = tiny.model_config(**FITTING, attention="auto", dropout=0.1)
    chosen = kernels.choose_attention(model, card())
    assert (chosen.updates, chosen.evaluations) == ("xla", "cudnn") and "drops no" in chosen.why


def test_a_model_attends_by_it_where_nothing_is_dropped_out(without_cudnn, monkeypatch):
    calls, right = [], attention.cudnn_attention
    monkeypatch.setattr(
        attention,
        "cudnn_attention",
        lambda *arrays, **settings: calls.append(1) or right(*arrays, **settings),
    )
    config = tiny.model_config(attention="cudnn", dropout=0.1)
    graph, _, state = tiny.parts(config, tiny.config())
    ids_BT, _ = tiny.batch(2, 7)
    model = step.nnx.merge(graph, state.params)
    model(ids_BT, rngs=step.nnx.Rngs(dropout=1))
    assert not calls
    model(ids_BT)
    assert len(calls) == config.n_layer


@pytest.mark.parametrize(
    ("changes", "device", "reason"),
    [
        ({}, card(platform="cpu"), "a CPU"),
        ({"dtype": "float32"}, card(), "not float32"),
        ({}, card("7.5"), "this card has 7.5"),
        ({"n_embd": 40}, card(), "not 20, channels"),
        ({"n_embd": 528}, card(), "not 264, channels"),
        ({"n_embd": 272}, card("8.9"), "heads of 8, 16, … 128, not 136"),
    ],
)
def test_where_it_does_not_fit_xla_is_used_and_the_reason_said(trial, changes, device, reason):
    trial("")
    model = tiny.model_config(**{**FITTING, **changes}, attention="auto")
    chosen = kernels.choose_attention(model, device)
    assert chosen.updates == chosen.evaluations == "xla" and reason in chosen.why
    with pytest.raises(UserError, match="model.attention: cudnn; ") as error:
        kernels.choose_attention(
            tiny.model_config(**{**FITTING, **changes}, attention="cudnn"), device
        )
    assert reason in str(error.value)


def test_a_trial_that_fails_is_no_error_unless_cudnn_was_asked_for(trial):
    trial("the fused kernel fails here (no engine)")
    auto = tiny.model_config(**FITTING, attention="auto")
    assert kernels.choose_attention(auto, card()).evaluations == "xla"
    asked = tiny.model_config(**FITTING, attention="cudnn")
    with pytest.raises(UserError, match="no engine"):
        kernels.choose_attention(asked, card())
    assert kernels.for_evaluation(asked, card()).attention == "xla"


def test_what_the_trial_of_a_device_without_the_kernel_says():
    assert "fails here" in kernels._trial(8, 16, jax.devices()[0])


def test_a_trial_compares_gradients(without_cudnn, monkeypatch):
    device = jax.devices()[0]
    kernels._trial.cache_clear()
    assert kernels._trial(24, 16, device) == ""
    kernels._trial.cache_clear()
    right = attention.cudnn_attention
    wrong = lambda *arrays, temperature: right(*arrays, temperature=2 * temperature)  # noqa: E731
    monkeypatch.setattr(attention, "cudnn_attention", wrong)
    assert "are off by" in kernels._trial(24, 16, device)
    kernels._trial.cache_clear()


@pytest.mark.parametrize("modern", [False, True])
def test_the_fused_kernel_is_asked_for_the_same_attention(without_cudnn, modern):
    """Scale, mask and layout, in float32, where XLA does what cuDNN is asked to do."""
    make = tiny.modern_config if modern else tiny.model_config
    plain, fused = make(attention="xla"), make(attention="cudnn")
    _, _, state = tiny.parts(plain, tiny.config())
    params = jax.tree.map(lambda leaf: 20 * leaf + 0.1, state.params)
    ids_BT, targets_BT = tiny.batch(3, 7)

    @functools.partial(jax.jit, static_argnums=0)
    def results(graph, params):
        def loss(params):
            logits_BTV = step.nnx.merge(graph, params)(ids_BT)
            return step.next_token_losses(logits_BTV, targets_BT).mean()

        return jax.value_and_grad(loss)(params)

    found = results(step.model_graph(fused), params)
    wanted = results(step.model_graph(plain), params)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-5 * np.abs(b).max())


def test_precision_is_traced_into_the_products():
    product = jax.jit(lambda a: a @ a)
    a = jnp.ones((2, 2))
    for name, written in (("default", "DEFAULT"), ("highest", "HIGHEST")):
        with kernels.matmul_precision(tiny.model_config(matmul_precision=name)):
            assert f"{written}" in product.lower(a).as_text()
