"""Updates: how they are cut up does not matter, and they learn."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import nnx

from gptjax.config.config import decay_iters
from gptjax.device import collectives
from gptjax.device.mesh import Layout
from gptjax.model import gpt as model_module
from gptjax.model.followers import with_counts
from gptjax.update import optim, step

# One block: how updates are cut up is the same for any number of them.
one_block = functools.partial(tiny.model_config, n_layer=1)


def steps_function(graph, tx, *, dropout_key=None, block_size=7):
    return jax.jit(functools.partial(step.train_steps, graph, tx, dropout_key, block_size))


@functools.cache
def twelve(dropout):
    """(the parts of a model, its tokens, the compiled loop of up to twelve updates on them)."""
    graph, tx, start = tiny.parts(one_block(dropout=dropout), tiny.config())
    tokens = jnp.asarray(np.random.default_rng(1).integers(0, tiny.VOCABULARY, 200), jnp.uint8)
    key = step.named_key(0, "dropout") if dropout else None
    return (graph, tx, start), tokens, steps_function(graph, tx, dropout_key=key)


def test_loss_equals_the_textbook_formula():
    logits_BTV = np.random.default_rng(0).normal(size=(2, 3, 5)).astype(np.float32)
    _, targets_BT = tiny.batch(2, 3)
    targets_BT = np.asarray(targets_BT) % 5
    exponentials = np.exp(logits_BTV.astype(np.float64))
    shares = exponentials / exponentials.sum(axis=-1, keepdims=True)
    wanted = -np.log(np.take_along_axis(shares, targets_BT[..., None], axis=-1))[..., 0]
    found = step.next_token_losses(jnp.asarray(logits_BTV), jnp.asarray(targets_BT))
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_windows_are_text_and_text_shifted_by_one():
    tokens = jnp.asarray(np.arange(50) % 17, jnp.uint8)
    x, y = step.windows(tokens, jnp.asarray([[3, 40], [0, 7], [11, 42]]), 7)
    assert x.shape == y.shape == (3, 2, 7) and x.dtype == jnp.int32
    np.testing.assert_array_equal(x[0, 1], np.arange(40, 47) % 17)
    np.testing.assert_array_equal(y[2, 1], np.arange(43, 50) % 17)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_cutting_a_run_into_chunks_changes_no_bit(dropout):
    (_, _, start), tokens, run = twelve(dropout)
    offsets = np.random.default_rng(2).integers(0, 190, (12, 1, 5)).astype(np.int32)

    def trained(cuts):
        state, losses, first = start, [], 0
        for n in cuts:
            slots = np.zeros_like(offsets)
            slots[:n] = offsets[first : first + n]
            state, metrics = run(tokens, state, slots, n)
            losses += np.asarray(metrics["loss"])[:n].tolist()
            first += n
        return state, losses

    whole, losses = trained([12])
    assert int(whole.step) == 12 and len(set(losses)) == 12
    for cuts in ([1] * 12, [5, 7], [3, 1, 8]):
        state, other = trained(cuts)
        tiny.assert_same_bits(state, whole)
        assert other == losses


def test_one_update_at_a_time_is_the_same_update():
    """The loop adds nothing to train_step, called by itself."""
    (graph, tx, start), tokens, run = twelve(0.0)
    offsets = np.random.default_rng(2).integers(0, 190, (12, 1, 5)).astype(np.int32)
    looped, _ = run(tokens, start, offsets, 3)
    state, single = start, jax.jit(functools.partial(step.train_step, graph, tx, None))
    for offsets_AB in offsets[:3]:
        state, _ = single(state, *step.windows(tokens, jnp.asarray(offsets_AB), 7))
    for a, b in zip(tiny.arrays(state), tiny.arrays(looped), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_accumulated_micro_batches_make_the_big_batchs_update(x64):
    """Micro-batches of unequal composition: one all the same token, others random.

    In float64, since Adam's first update divides each gradient by its own size: where one is
    nothing but rounding, the update is a coin toss.
    """
    model = one_block(dtype="float64", param_dtype="float64", bias=False)
    graph, tx, start = tiny.parts(model, tiny.config())
    x_BT, y_BT = tiny.batch(6, 7)
    x_BT, y_BT = x_BT.at[:2].set(3), y_BT.at[:2].set(4)
    update = jax.jit(functools.partial(step.train_step, graph, tx, None))
    big, big_metrics = update(start, x_BT[None], y_BT[None])
    split, split_metrics = update(start, x_BT.reshape(3, 2, 7), y_BT.reshape(3, 2, 7))
    for name in ("loss", "grad_norm"):
        np.testing.assert_allclose(split_metrics[name], big_metrics[name], rtol=1e-9)
    for a, b in zip(tiny.arrays(split.params), tiny.arrays(big.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6 * np.abs(b).max())
    thrice = [jnp.stack([ids_BT[:2]] * 3) for ids_BT in (x_BT, y_BT)]
    first, _ = update(start, *thrice)
    assert any(
        not np.allclose(a, b, atol=1e-5)
        for a, b in zip(tiny.arrays(first.params), tiny.arrays(big.params), strict=True)
    )


def test_micro_batches_have_dropout_masks_of_their_own():
    graph, tx, start = tiny.parts(one_block(dropout=0.5), tiny.config())
    x_BT, y_BT = tiny.batch(2, 7)
    update = jax.jit(functools.partial(step.train_step, graph, tx, jax.random.key(5)))
    once = update(start, x_BT[None], y_BT[None])[1]["loss"]
    twice = update(start, jnp.stack([x_BT, x_BT]), jnp.stack([y_BT, y_BT]))[1]["loss"]
    # With one mask for both, the losses would differ by rounding, some 1e-7.
    assert abs(float(once) - float(twice)) > 1e-5


def test_overfits_one_batch():
    settings = tiny.config(optim__learning_rate=1e-2, train__max_iters=300)
    graph, tx, start = tiny.parts(tiny.model_config(), settings)
    tokens = jnp.asarray(np.random.default_rng(3).integers(0, tiny.VOCABULARY, 40), jnp.uint8)
    offsets = np.tile(np.asarray([0, 8, 16, 24], np.int32), (300, 1, 1))
    _, metrics = steps_function(graph, tx)(tokens, start, offsets, 300)
    losses = np.asarray(metrics["loss"])
    assert losses[0] > 2.2 and losses[-1] < 0.1


@pytest.mark.parametrize("length", [0, 2])
def test_one_device_equals_several(length):
    """A batch split over devices gives one device's update, but for the order of sums.

    In the third case the state is split, too. In the second, all gradients of all micro-batches are
    sent at once. A model that is told of counts reads tables that all devices have.
    """
    model = dataclasses.replace(one_block(), followers=length, follower_rows=50)
    knobs = dict(model__followers=length, model__follower_rows=50)
    graph, tx, start = tiny.parts(model, tiny.config(**knobs))
    tokens = np.random.default_rng(1).integers(0, tiny.VOCABULARY, 200).astype(np.uint8)
    offsets = np.random.default_rng(2).integers(0, 190, (5, 2, 12)).astype(np.int32)
    start = start.replace(params=with_counts(start.params, model, tokens))
    results = []
    for n_devices, n_fsdp in ((1, 1), (2, 1), (4, 2)):
        layout = Layout(jax.devices()[:n_devices], n_fsdp)
        everywhere = layout.replicated
        lies = jax.tree.map(lambda leaf: leaf.sharding, layout.placed(start))
        ways = dict(over=layout.gathered, averaged=layout.averaged)
        updates = functools.partial(step.train_steps, graph, tx, None, 7, **ways)
        arguments = (
            jax.device_put(tokens, everywhere),
            layout.put(tiny_copy(start)),
            jax.device_put(offsets, layout.split_last_axis(3)),
            5,
        )
        compiled = jax.jit(updates, out_shardings=(lies, everywhere)).lower(*arguments).compile()
        if n_fsdp == 1 < n_devices:
            (sent,) = collectives.traffic(compiled.as_text(), n_devices)
            weights, _ = step.weights_and_tables(start.params)
            n_numbers = 1 + sum(leaf.size for leaf in jax.tree.leaves(weights))
            assert (sent.kind, sent.n_calls, sent.n_bytes) == ("all-reduce", 1, 4 * n_numbers)
        state, metrics = compiled(*arguments)
        results.append((state.params, metrics["loss"]))
    for other in results[1:]:
        for a, b in zip(tiny.arrays(results[0]), tiny.arrays(other), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def tiny_copy(tree):
    return jax.tree.map(lambda leaf: np.array(leaf), tree)


def test_window_losses_are_each_windows_own():
    graph, _, state = tiny.parts(tiny.model_config(), tiny.config())
    tokens = jnp.asarray(np.random.default_rng(1).integers(0, tiny.VOCABULARY, 60), jnp.uint8)
    offsets = np.asarray([[0, 7], [14, 50]], np.int32)
    losses = jax.jit(functools.partial(step.window_losses, graph, 7))(
        state.params, tokens, offsets, len(offsets)
    )
    for index, offset in np.ndenumerate(offsets):
        window = jnp.asarray(tokens[offset : offset + 8], jnp.int32)[None]
        alone = step.next_token_losses(
            tiny.apply(graph, state.params, window[:, :-1]), window[:, 1:]
        ).mean()
        np.testing.assert_allclose(losses[index], alone, rtol=1e-5)


def test_streams_of_one_seed_are_unrelated():
    bits = {
        name: jax.random.bits(step.named_key(7, name), (4,)).tolist()
        for name in ("params", "dropout", "sample")
    }
    assert len({tuple(value) for value in bits.values()}) == 3
    assert bits["params"] != jax.random.bits(step.named_key(8, "params"), (4,)).tolist()


def test_the_norm_of_bfloat16_gradients_is_not_rounded():
    values = np.random.default_rng(0).normal(size=1000).astype(jnp.bfloat16)
    norm = optim.wide_norm({"a": jnp.asarray(values[:400]), "b": jnp.asarray(values[400:])})
    assert norm.dtype == jnp.float32
    np.testing.assert_allclose(norm, np.linalg.norm(values.astype(np.float64)), rtol=1e-6)


class TestBfloat16Parameters:
    @staticmethod
    @functools.cache
    def train(**knobs):
        """The states before and after 150 updates."""
        settings = tiny.config(
            model__param_dtype="bfloat16",
            optim__learning_rate=1e-4,
            optim__min_lr=1e-4,
            train__max_iters=300,
            **knobs,
        )
        graph, tx, start = tiny.parts(one_block(param_dtype="bfloat16"), settings)
        tokens = jnp.asarray(np.random.default_rng(3).integers(0, tiny.VOCABULARY, 40), jnp.uint8)
        offsets = np.tile(np.asarray([0, 8, 16, 24], np.int32), (150, 1, 1))
        state, _ = steps_function(graph, tx)(tokens, start, offsets, 150)
        return start, state

    def test_parameters_are_the_rounded_masters(self):
        _, state = self.train()
        masters = state.opt_state.masters
        for leaf, master in zip(tiny.arrays(state.params), tiny.arrays(masters), strict=True):
            assert leaf.dtype == jnp.bfloat16 and master.dtype == np.float32
            np.testing.assert_array_equal(leaf, master.astype(jnp.bfloat16))

    def test_masters_keep_the_updates_that_bfloat16_loses(self):
        def moved(start, state, name):
            before = np.asarray(start.params[name]["scale"][...], np.float32)
            return np.abs(np.asarray(state.params[name]["scale"][...], np.float32) - before).max()

        # A layer norm's weights are 1, where bfloat16's step is 1/128: 1e-4 vanishes each time.
        assert moved(*self.train(optim__master_weights=False), "ln_f") == 0
        assert moved(*self.train(), "ln_f") > 1 / 256


def test_horizon_is_max_iters_unless_said_otherwise():
    assert decay_iters(tiny.config()) == 12
    assert decay_iters(tiny.config(optim__lr_decay_iters=40)) == 40


def test_learning_rate_warms_up_decays_and_stays():
    settings = tiny.config(optim__lr_decay_iters=10, train__max_iters=20)
    rates = [float(optim.learning_rate(settings)(jnp.asarray(i, jnp.int32))) for i in range(20)]
    assert np.isclose(rates[0], 1e-3 / 3) and np.isclose(rates[2], 1e-3)
    assert rates[2:11] == sorted(rates[2:11], reverse=True)
    np.testing.assert_allclose(rates[10:], 1e-4, rtol=1e-6)
    constant = tiny.config(optim__schedule="constant")
    assert np.isclose(float(optim.learning_rate(constant)(jnp.asarray(11, jnp.int32))), 1e-3)


# (schedule, warmup, decay_share, horizon); what would fall before it has risen is refused.
SCHEDULES = [
    case
    for case in itertools.product(
        ("cosine", "linear", "constant"), (0, 1, 5, 25, 60), (0.1, 0.6, 1.0), (0, 7, 40)
    )
    if case[0] == "constant" or case[3] == 0 or case[1] < case[3]
]


@pytest.mark.parametrize(("schedule", "warmup", "decay_share", "horizon"), SCHEDULES)
def test_no_schedule_jumps(schedule, warmup, decay_share, horizon):
    """Between two updates the rate changes by no more than its steepest slope."""
    settings = tiny.config(
        optim__schedule=schedule,
        optim__warmup_iters=warmup,
        optim__decay_share=decay_share,
        optim__lr_decay_iters=horizon,
        train__max_iters=40,
    )
    peak, floor = settings.optim.learning_rate, settings.optim.min_lr
    rates = np.asarray(optim.learning_rate(settings)(jnp.arange(40)))
    rising, falling = peak / (warmup + 1), peak - floor
    n_falling = decay_share * (horizon or 40)
    if schedule == "cosine":  # Half a turn of the cosine is steepest in its middle.
        n_falling = max((horizon or 40) - warmup, 1) / (np.pi / 2)
    steepest = max(rising, falling / n_falling if schedule != "constant" else 0)
    assert np.abs(np.diff(rates)).max() <= 1.001 * steepest
    assert rates.max() <= 1.0001 * peak and rates.min() > 0


def test_a_warmup_that_overlaps_the_fall_turns_where_they_meet():
    """A straight line of 20 updates over 40, begun while 30 updates of warmup are under way."""
    settings = tiny.config(
        optim__schedule="linear",
        optim__warmup_iters=30,
        optim__decay_share=0.5,
        train__max_iters=40,
    )
    rates = np.asarray(optim.learning_rate(settings)(jnp.arange(40)))
    rising = 1e-3 * (np.arange(40) + 1) / 31
    falling = 1e-4 + np.clip((40 - np.arange(40)) / 20, 0, 1) * 9e-4
    np.testing.assert_allclose(rates, np.minimum(rising, falling), rtol=1e-5)


def test_decay_spares_vectors():
    """With gradients of zero only decay moves a weight: matrices shrink, vectors stay."""
    settings = tiny.config(optim__warmup_iters=0, train__max_iters=10)
    _, tx, start = tiny.parts(tiny.model_config(), settings)
    zeros = jax.tree.map(jnp.zeros_like, start.params)
    updates, _ = jax.jit(tx.update)(zeros, start.opt_state, start.params)
    for path, leaf in nnx.to_flat_state(updates):
        shrunk = np.asarray(leaf[...])
        if path[-1] in ("kernel", "embedding"):
            weights = start.params
            for part in path:
                weights = weights[part]
            np.testing.assert_allclose(shrunk, -1e-3 * 0.1 * np.asarray(weights[...]), rtol=1e-5)
        else:
            assert (shrunk == 0).all()


def test_clipping_off_and_on():
    grads = {"a": jnp.asarray([3.0, 4.0]), "b": jnp.asarray([12.0])}

    def clipped(max_norm):
        tx = optim.clip_by_norm(max_norm)
        return tx.update(grads, tx.init(grads))[0]

    tiny.assert_same_bits(clipped(0.0), grads)
    tiny.assert_same_bits(clipped(20.0), grads)
    np.testing.assert_allclose(clipped(1.0)["a"], np.array([3.0, 4.0]) / 13.000001, rtol=1e-6)


def test_a_large_vocabulary_has_the_same_loss_and_gradients_as_a_small_one(monkeypatch):
    """By index in place of one-hot products and comparisons."""
    model = tiny.model_config(tie_embeddings=False)
    graph, _, state = tiny.parts(model, tiny.config())
    x_BT, y_BT = tiny.batch(3, 7)

    def results():
        def loss(params):
            return step.next_token_losses(nnx.merge(graph, params)(x_BT), y_BT).mean()

        return jax.jit(jax.value_and_grad(loss))(state.params)

    small = results()
    for module in (model_module, step):
        monkeypatch.setattr(module, "is_small_vocabulary", lambda n_symbols: False)
    for a, b in zip(jax.tree.leaves(results()), jax.tree.leaves(small), strict=True):
        assert np.abs(b).max() > 0
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(b).max())


def test_gradients_of_a_frequent_token_are_added_up_in_float32(monkeypatch):
    monkeypatch.setattr(model_module, "is_small_vocabulary", lambda n_symbols: False)
    config = tiny.model_config(dtype="bfloat16", tie_embeddings=False, block_size=1000)
    graph, _, state = tiny.parts(config, tiny.config())
    x_BT = jnp.full((8, 1000), 3)

    def looked_up(params):
        return nnx.merge(graph, params)._embedded(x_BT, position_offset=0).astype(jnp.float32).sum()

    gradient = jax.grad(looked_up)(state.params)["wte"]["embedding"][...]
    # In bfloat16 a sum of ones stops at 256.
    np.testing.assert_array_equal(gradient[3], 8000)
