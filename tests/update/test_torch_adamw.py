"""AdamW's state by way of torch's form: the updates that follow are nanoGPT's own."""

import copy
import functools

import jax
import jax.numpy as jnp
import nanogpt
import numpy as np
import optax
import pytest
import tiny

from gptjax.model import interop
from gptjax.update import optim, step, torch_adamw


def updates(oracle, state, numbers):
    """The state after the oracle's updates of these numbers, and their losses."""
    graph, _ = oracle.params("init")
    update = jax.jit(
        functools.partial(step.train_step, graph, optim.optimizer(oracle.config()), None)
    )
    losses = []
    for i in numbers:
        x_BT, y_BT = (jnp.asarray(oracle.arrays[name][i]) for name in "xy")
        state, metrics = update(state, x_BT[None], y_BT[None])
        losses.append(float(metrics["loss"]))
    return state, losses


def through_torch(oracle, state):
    """The state, by way of what torch would have saved of it."""
    config, model = oracle.config(), oracle.model_config
    weights = interop.from_params(state.params, model)
    adamw = torch_adamw.from_optax(state.opt_state, config, model)
    stored = torch_adamw.to_torch(adamw, weights, rate=1e-3)
    again = torch_adamw.from_torch(stored, weights)
    opt_state = torch_adamw.to_optax(again, config, model, step=int(state.step))
    params = interop.to_params(weights, model)
    return step.TrainState(state.step, params, opt_state), stored, weights


@pytest.mark.parametrize("name", ["nobias", "bias"])
def test_after_a_change_of_form_the_next_updates_are_nanogpts(name):
    oracle = nanogpt.Oracle(name, "float32")
    _, params = oracle.params("init")
    state = step.TrainState(
        jnp.zeros((), jnp.int32), params, optim.optimizer(oracle.config()).init(params)
    )
    state, _ = updates(oracle, state, [0, 1])
    moved, _, _ = through_torch(oracle, state)
    tiny.assert_same_bits(moved, state)
    assert jax.tree.structure(moved) == jax.tree.structure(state)
    final, losses = updates(oracle, moved, [2, 3, 4])
    nanogpt.assert_close(losses, oracle.arrays["losses"][2:], 2e-4)
    for other, array in interop.from_params(final.params, oracle.model_config).items():
        if f"final/{other}" in oracle.arrays:
            nanogpt.assert_close(array, oracle.arrays[f"final/{other}"], 2e-4)


def waves(params, *, start=0):
    """Gradients with a number of its own for each weight, below the norm that is clipped."""
    return jax.tree.map(
        lambda leaf: 1e-3 * jnp.sin(start + jnp.arange(leaf.size)).reshape(leaf.shape), params
    )


@pytest.fixture(scope="module")
def one_layer():
    """(config, model, state after some updates' worth of noise, torch's form, weights by name)."""
    config, model = tiny.config(), tiny.model_config(n_layer=1)
    _, tx, state = tiny.parts(model, config)
    grads = waves(state.params)
    opt_state = state.opt_state
    for _ in range(3):
        _, opt_state = tx.update(grads, opt_state, state.params)
    weights = interop.from_params(state.params, model)
    adamw = torch_adamw.from_optax(opt_state, config, model)
    return (
        config,
        model,
        state,
        opt_state,
        torch_adamw.to_torch(adamw, weights, rate=0.125),
        weights,
    )


def test_torch_counts_matrices_first_and_lets_them_alone_decay(one_layer):
    *_, stored, weights = one_layer
    decaying, others = stored["param_groups"]
    matrices = [
        "wte",
        "wpe",
        "h.0.attn.c_attn",
        "h.0.attn.c_proj",
        "h.0.mlp.c_fc",
        "h.0.mlp.c_proj",
    ]
    for number, name in enumerate(matrices):
        shape = weights[f"transformer.{name}.weight"].shape
        assert stored["state"][number]["exp_avg"].shape == shape
    assert stored["state"][6]["exp_avg"].shape == weights["transformer.h.0.ln_1.weight"].shape
    # ln_1's weight and bias, then c_attn's bias, three times as wide.
    assert stored["state"][8]["exp_avg"].shape == (3 * 15,)
    assert (decaying["params"], others["params"]) == (list(range(6)), list(range(6, 16)))
    assert (decaying["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    assert decaying["lr"] == 0.125 and decaying["betas"] == (0.9, 0.99)


def test_an_update_by_torchs_formula_from_torchs_form_is_the_same(one_layer):
    """torch.optim.AdamW's own arithmetic, in numpy, on what is stored under each number."""
    config, model, state, opt_state, stored, weights = one_layer
    tx = optim.optimizer(config)
    grads = waves(state.params, start=7)
    moves, _ = tx.update(grads, opt_state, state.params)
    found = interop.from_params(optax.apply_updates(state.params, moves), model)
    by_name = interop.from_params(grads, model)
    rate = torch_adamw.next_rate(config, 3)
    names = [name for axes in (2, 1) for name in weights if weights[name].ndim == axes]
    for group in stored["param_groups"]:
        for number in group["params"]:
            name, kept = names[number], stored["state"][number]
            grad, (beta1, beta2) = by_name[name], group["betas"]
            mean = beta1 * kept["exp_avg"] + (1 - beta1) * grad
            square = beta2 * kept["exp_avg_sq"] + (1 - beta2) * grad**2
            n = kept["step"] + 1
            root = np.sqrt(square) / np.sqrt(1 - beta2**n) + group["eps"]
            decayed = weights[name] * (1 - rate * group["weight_decay"])
            wanted = decayed - rate / (1 - beta1**n) * mean / root
            np.testing.assert_allclose(found[name], wanted, atol=2e-7, err_msg=name)


def test_what_adamw_left_out_does_not_stop_the_learning_rate(one_layer):
    """nanoGPT's scaler for float16 leaves updates out that overflow; its schedule goes on."""
    config, model, _, opt_state, stored, weights = one_layer
    adamw = torch_adamw.from_torch(stored, weights)
    found = torch_adamw.to_optax(adamw, config, model, step=5)
    counts = [int(leaf) for leaf in jax.tree.leaves(found) if leaf.ndim == 0]
    assert sorted(counts) == [3, 5]
    assert torch_adamw.from_optax(found, config, model).step == 3


def stored_with(path, value):
    def change(stored):
        *folders, last = path
        place = functools.reduce(lambda node, key: node[key], folders, stored)
        place[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda stored: stored.pop("state"), "KeyError: 'state'"),
        (stored_with(["param_groups"], []), "optimizer is not|not enough values"),
        (stored_with(["param_groups"], None), "is not nanoGPT's AdamW"),
        (stored_with(["state", 3], {}), "KeyError: 'step'"),
        (stored_with(["state", 3, "step"], np.array(7.0)), r"has made \[3.0, 7.0\] updates"),
        (
            stored_with(["state", 0, "exp_avg"], np.zeros((2, 3), np.float32)),
            "wte.weight is float32",
        ),
        (stored_with(["state", 0, "exp_avg"], "text"), "is no tensor"),
        (stored_with(["param_groups", 0, "amsgrad"], True), "has amsgrad=True, not False"),
        (stored_with(["param_groups", 1, "eps"], 1e-6), "has eps=1e-06, not 1e-08"),
        (
            stored_with(["param_groups", 1, "weight_decay"], 0.1),
            "biases and norms otherwise",
        ),
        (stored_with(["param_groups", 0, "betas"], ("a", "b")), "betas or a weight_decay"),
        (stored_with(["param_groups", 0, "params"], [1, 0, 2, 3, 4, 5]), "grouped as nanoGPT does"),
    ],
)
def test_another_optimizer_is_refused(one_layer, change, words):
    config, model, _, _, stored, weights = one_layer
    stored = copy.deepcopy(stored)
    change(stored)
    with pytest.raises(ValueError, match=words):
        torch_adamw.to_optax(torch_adamw.from_torch(stored, weights), config, model, step=3)


def test_squares_below_0_are_refused(one_layer):
    config, model, _, _, stored, weights = one_layer
    stored = copy.deepcopy(stored)
    stored["state"][0]["exp_avg_sq"] -= 1
    with pytest.raises(ValueError, match="mean squares below 0"):
        torch_adamw.to_optax(torch_adamw.from_torch(stored, weights), config, model, step=3)
