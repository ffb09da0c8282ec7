"""The model, the optimizer and the sampler compute what nanoGPT computes."""

import functools

import jax
import jax.numpy as jnp
import nanogpt
import numpy as np
import pytest
from flax import nnx
from flax.traverse_util import flatten_dict
from nanogpt import assert_close

from gptjax.run.continuation import Continuation
from gptjax.update import optim, step

FLOAT64 = ("float64", 1e-9)
FLOAT32 = ("float32", 2e-4)


@pytest.fixture(params=["nobias", "bias"])
def name(request):
    return request.param


@pytest.fixture(params=[FLOAT64, FLOAT32], ids=["float64", "float32"])
def precision(request):
    jax.config.update("jax_enable_x64", request.param[0] == "float64")
    yield request.param
    jax.config.update("jax_enable_x64", False)


def leaves(params):
    return flatten_dict(nnx.to_pure_dict(params))


def test_logits_loss_and_gradients(name, precision):
    dtype, tolerance = precision
    oracle = nanogpt.Oracle(name, dtype)
    graph, params = oracle.params("init")
    x_BT, y_BT = oracle.arrays["x"][0], oracle.arrays["y"][0]

    @functools.partial(jax.value_and_grad, has_aux=True)
    def loss_of(params):
        logits_BTV = nnx.merge(graph, params)(jnp.asarray(x_BT))
        return step.next_token_losses(logits_BTV, jnp.asarray(y_BT)).mean(), logits_BTV

    (loss, logits_BTV), grads = jax.jit(loss_of)(params)
    assert_close(logits_BTV, oracle.arrays["logits0"], tolerance)
    assert_close(loss, oracle.arrays["losses"][0], tolerance)
    assert len(leaves(grads)) == sum(key.startswith("grad0/") for key in oracle.arrays)
    for path, grad in leaves(grads).items():
        assert_close(grad, oracle.array("grad0", path), tolerance)


def test_learning_rates(name, precision):
    oracle = nanogpt.Oracle(name, precision[0])
    rate = optim.learning_rate(oracle.config())
    rates = [rate(jnp.asarray(i, jnp.int32)) for i in range(len(oracle.arrays["lrs"]))]
    assert_close(jnp.stack(rates), oracle.arrays["lrs"], precision[1])


def test_five_updates(name, precision):
    dtype, tolerance = precision
    oracle = nanogpt.Oracle(name, dtype)
    graph, params = oracle.params("init")
    tx = optim.optimizer(oracle.config())
    state = step.TrainState(jnp.zeros((), jnp.int32), params, tx.init(params))
    update = jax.jit(functools.partial(step.train_step, graph, tx, None))
    for i, (x_BT, y_BT) in enumerate(zip(oracle.arrays["x"], oracle.arrays["y"], strict=True)):
        state, metrics = update(state, jnp.asarray(x_BT)[None], jnp.asarray(y_BT)[None])
        assert_close(metrics["loss"], oracle.arrays["losses"][i], tolerance)
        assert_close(metrics["grad_norm"], oracle.arrays["grad_norms"][i], tolerance)
    compared = 0
    for path, leaf in leaves(state.params).items():
        if oracle.has("final", path):
            assert_close(leaf, oracle.array("final", path), tolerance)
            compared += 1
    assert compared == sum(key.startswith("final/") for key in oracle.arrays)


def test_greedy_sampling_past_the_window(name, precision):
    oracle = nanogpt.Oracle(name, precision[0])
    assert greedy(oracle).tolist() == oracle.arrays["greedy"][0].tolist()


def greedy(oracle):
    wanted, model = oracle.arrays["greedy"][0], oracle.model_config
    continuation = Continuation(
        model,
        jax.devices()[0],
        num_samples=1,
        top_k=0,
        n_slots=len(wanted),
        n_symbols=model.vocab_size,
    )
    new_tokens = continuation.tokens(
        oracle.params("init")[1],
        wanted[:3],
        seed=0,
        max_new_tokens=len(wanted) - 3,
        temperature=0.0,
        stride=1,
    )
    return np.concatenate([wanted[:3], *(tokens_BK[0] for tokens_BK in new_tokens)])
