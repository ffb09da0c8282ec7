"""The pure functions that train and evaluate: no I/O, no jit; program.py compiles them once."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax import nnx

from gptjax.config.config import GPTConfig
from gptjax.model import gradients
from gptjax.model.gpt import GPT
from gptjax.model.initial import initial_params
from gptjax.model.layers import is_small_vocabulary
from gptjax.update import optim

# Makes a function of weights one over several devices, as device.mesh.Layout does: `gathered`, or
# `averaged`; `alone`: there is one.
Over = Callable[[Callable[..., Any]], Callable[..., Any]]


def alone(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as it is."""
    return function


@flax.struct.dataclass
class TrainState:
    """All that an update changes: the number of updates made, weights and optimizer state."""

    step: jax.Array
    params: nnx.State
    opt_state: Any


def named_key(seed: int | jax.Array, name: str) -> jax.Array:
    """The seed's random key for one purpose; different names give unrelated streams."""
    # Named, so that no setting of the environment changes what a seed means.
    key = jax.random.key(seed, impl="threefry2x32")
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


@functools.cache
def model_graph(config: GPTConfig) -> nnx.GraphDef:
    """The model's structure without its weights; only what is traced needs it."""
    return nnx.split(nnx.eval_shape(lambda: GPT(config, rngs=nnx.Rngs(0))))[0]


def initial_state(
    config: GPTConfig, tx: optax.GradientTransformation, seed: int | jax.Array
) -> TrainState:
    """The state before the first update."""
    params = initial_params(lambda rngs: GPT(config, rngs=rngs), named_key(seed, "params"))
    return first_state(params, tx)


def first_state(params: nnx.State, tx: optax.GradientTransformation) -> TrainState:
    """The state of weights that no update has changed."""
    weights, _ = weights_and_tables(params)
    return TrainState(step=jnp.zeros((), jnp.int32), params=params, opt_state=tx.init(weights))


def weights_and_tables(params: nnx.State) -> tuple[nnx.State, nnx.State]:
    """What updates change of a model, and what they leave as it is."""
    weights, tables = nnx.split_state(params, nnx.Param, ...)
    return weights, tables


def next_token_losses(logits_BTV: jax.Array, targets_BT: jax.Array) -> jax.Array:
    """Cross-entropy of each target, nats, axes BT.

    Of a small vocabulary the target's logit is picked by a fused comparison; of a large one, where
    that would read all logits once more, by an index, with the gradient by hand.
    """
    if not is_small_vocabulary(logits_BTV.shape[-1]):
        return gradients.cross_entropy(logits_BTV, targets_BT)
    is_target_BTV = targets_BT[..., None] == jnp.arange(logits_BTV.shape[-1])[None, None]
    target_logit_BT = jnp.sum(jnp.where(is_target_BTV, logits_BTV, 0), axis=-1)
    return jax.nn.logsumexp(logits_BTV, axis=-1) - target_logit_BT


def windows(tokens: jax.Array, offsets: jax.Array, block_size: int) -> tuple[jax.Array, jax.Array]:
    """Inputs and targets of the windows at `offsets`: int32, with a last axis of block_size."""
    steps_T = jnp.arange(block_size + 1).reshape(*[1] * offsets.ndim, -1)
    ids = tokens[offsets[..., None] + steps_T].astype(jnp.int32)
    return ids[..., :-1], ids[..., 1:]


def train_step(
    graph: nnx.GraphDef,
    tx: optax.GradientTransformation,
    dropout_key: jax.Array | None,
    state: TrainState,
    x_ABT: jax.Array,
    y_ABT: jax.Array,
    first_AB: jax.Array | None = None,
    *,
    over: Over = alone,
    averaged: Over = alone,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One optimizer update from A micro-batches of inputs x and targets y.

    `dropout_key` None means no dropout. The windows begin at `first_AB` of the training text; a
    model that is told what follows in it needs that. With dropout `averaged` is not used: each
    device would draw masks of its own, and the run would depend on how many there are.

    Returns the new state and {"loss": nats per token, "grad_norm": before clipping}.
    """

    weights, tables = weights_and_tables(state.params)

    def loss_of(weights, tables, x_BT, y_BT, first_B, micro):
        rngs = None
        if dropout_key is not None:
            key = jax.random.fold_in(jax.random.fold_in(dropout_key, state.step), micro)
            rngs = nnx.Rngs(dropout=key)
        logits_BTV = nnx.merge(graph, weights, tables)(x_BT, rngs=rngs, first_B=first_B)
        return next_token_losses(logits_BTV, y_BT).mean()

    def mean(params, batch):
        weights, tables = params

        def loss_and_grads(weights, *micro_batch):
            return jax.value_and_grad(over(loss_of))(weights, tables, *micro_batch)

        return _mean_over_micro_batches(loss_and_grads, weights, batch)

    if dropout_key is None:
        mean = averaged(mean)
    loss, grads = mean((weights, tables), (x_ABT, y_ABT, first_AB))
    grad_norm = optim.wide_norm(grads)
    with jax.named_scope("optimizer"):
        updates, opt_state = tx.update(grads, state.opt_state, weights)
        weights = optax.apply_updates(weights, updates)
    params = nnx.merge_state(weights, tables)
    new_state = TrainState(step=state.step + 1, params=params, opt_state=opt_state)
    return new_state, {"loss": loss, "grad_norm": grad_norm}


def _mean_over_micro_batches(
    loss_and_grads: Callable[..., Any], params: nnx.State, batch: tuple[jax.Array | None, ...]
) -> Any:
    """The mean of `loss_and_grads(params, *micro_batch, micro)`, added up in float32 at least.

    Arrays of the batch have micro-batches as their first axis.
    """
    n_micro = len(jax.tree.leaves(batch)[0])
    if n_micro == 1:
        return loss_and_grads(params, *jax.tree.map(lambda array: array[0], batch), 0)

    def add(total, inputs):
        found = loss_and_grads(params, *inputs)
        return jax.tree.map(lambda t, g: t + g.astype(t.dtype), total, found), None

    zeros = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, jnp.promote_types(leaf.dtype, jnp.float32)), params
    )
    zero = jnp.zeros((), jnp.promote_types(jnp.result_type(*jax.tree.leaves(zeros)), "float32"))
    total, _ = jax.lax.scan(add, (zero, zeros), (*batch, jnp.arange(n_micro)))
    return jax.tree.map(lambda leaf: leaf / n_micro, total)


def train_steps(
    graph: nnx.GraphDef,
    tx: optax.GradientTransformation,
    dropout_key: jax.Array | None,
    block_size: int,
    tokens: jax.Array,
    state: TrainState,
    offsets_KAB: jax.Array,
    n_updates: jax.Array,
    *,
    over: Over = alone,
    averaged: Over = alone,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """The first `n_updates` of K updates in one dispatch; metrics are arrays of length K.

    The number is an argument of one compiled loop, not its shape: every chunk, however short,
    runs the same machine code, so that how a run is cut into chunks cannot change a bit of it.
    """
    n_slots = offsets_KAB.shape[0]
    empty = {"loss": jnp.zeros(n_slots), "grad_norm": jnp.zeros(n_slots)}

    def one_update(index, carry):
        state, metrics_K = carry
        offsets_AB = offsets_KAB[index]
        x_ABT, y_ABT = windows(tokens, offsets_AB, block_size)
        batch = (x_ABT, y_ABT, offsets_AB)
        state, metrics = train_step(
            graph, tx, dropout_key, state, *batch, over=over, averaged=averaged
        )
        metrics_K = {
            name: values_K.at[index].set(metrics[name].astype(values_K.dtype))
            for name, values_K in metrics_K.items()
        }
        return state, metrics_K

    return jax.lax.fori_loop(0, n_updates, one_update, (state, empty))


def token_losses(graph: nnx.GraphDef, params: nnx.State, ids_BT: jax.Array) -> jax.Array:
    """What each token but the first costs a model that has read those before it: nats, axes BT."""
    logits_BTV = nnx.merge(graph, params)(ids_BT[:, :-1])
    return next_token_losses(logits_BTV, ids_BT[:, 1:])


def window_losses(
    graph: nnx.GraphDef,
    block_size: int,
    params: nnx.State,
    tokens: jax.Array,
    offsets_CB: jax.Array,
    n_batches: jax.Array,
    *,
    over: Over = alone,
) -> jax.Array:
    """Mean loss of each window, nats per token, axes CB, of the first `n_batches` batches."""

    def of_weights(params):
        model = nnx.merge(graph, params)

        def one_batch(index, losses_CB):
            x_BT, y_BT = windows(tokens, offsets_CB[index], block_size)
            losses_B = next_token_losses(model(x_BT), y_BT).mean(axis=-1)
            return losses_CB.at[index].set(losses_B.astype(losses_CB.dtype))

        return jax.lax.fori_loop(0, n_batches, one_batch, jnp.zeros(offsets_CB.shape))

    return over(of_weights)(params)
