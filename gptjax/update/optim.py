"""nanoGPT's AdamW: its learning-rate schedule, gradient clipping and choice of what decays."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import optax

from gptjax.config.config import decay_iters
from gptjax.update.muon import muon


def learning_rate(config: ml_collections.ConfigDict) -> optax.Schedule:
    """The rate of update i, counted from 0: linear warmup, then as optim.schedule says.

    Source: nanoGPT train.py, get_lr, off-by-ones included: the first rate is peak / (warmup + 1).
    (optax.warmup_cosine_decay_schedule with that init_value is the same formula, rounded otherwise;
    it has no constant part for the linear schedule, and float32 where float64 is on.)
    """
    optim, horizon = config.optim, decay_iters(config)
    peak, floor, warmup = optim.learning_rate, optim.min_lr, optim.warmup_iters

    def rate(step: jax.Array) -> jax.Array:
        # optax counts in int32, and int32 / int32 is float32 even where float64 is on.
        step = jnp.asarray(step, jnp.result_type(float))
        warming = peak * (step + 1) / (warmup + 1)
        if optim.schedule == "constant":
            return jnp.where(step < warmup, warming, peak)
        if optim.schedule == "linear":
            fall_steps = optim.decay_share * horizon
            left = jnp.clip((horizon - step) / fall_steps, 0.0, 1.0)
            falling = floor + left * (peak - floor)
            # Where the fall begins before the warmup is over, the rate turns where they meet.
            return jnp.where(step < warmup, jnp.minimum(warming, falling), falling)
        # Of a run that ends while it warms up, nothing is left to decay.
        progress = jnp.clip((step - warmup) / max(horizon - warmup, 1), 0.0, 1.0)
        decayed = floor + 0.5 * (1.0 + jnp.cos(jnp.pi * progress)) * (peak - floor)
        return jnp.where(step < warmup, warming, decayed)

    return rate


def optimizer(
    config: ml_collections.ConfigDict, rate: optax.Schedule | None = None
) -> optax.GradientTransformation:
    """Clipping, AdamW (or Muon and AdamW) and, for bfloat16 parameters, float32 masters.

    `rate` stands in for the config's own `learning_rate`.
    """
    optim, rate = config.optim, rate or learning_rate(config)
    adamw = optax.adamw(
        rate,
        b1=optim.beta1,
        b2=optim.beta2,
        eps=1e-8,
        weight_decay=optim.weight_decay,
        mask=_is_matrix,
    )
    if optim.name == "muon":
        ratio = optim.muon_learning_rate / optim.learning_rate
        blocks = muon(
            lambda step: ratio * rate(step),
            momentum=optim.muon_momentum,
            weight_decay=optim.weight_decay,
        )
        rule = optax.partition({"muon": blocks, "adamw": adamw}, _rule_of_each)
    else:
        rule = adamw
    tx = optax.chain(clip_by_norm(optim.grad_clip), rule)
    if config.model.param_dtype != "float32" and optim.master_weights:
        tx = with_float32_masters(tx)
    return tx


def _rule_of_each(params: optax.Params) -> optax.Params:
    """Muon for the blocks' matrices, AdamW for embeddings, head and vectors."""

    def rule(path, leaf):
        return "muon" if "blocks" in jax.tree_util.keystr(path) and leaf.ndim == 2 else "adamw"

    return jax.tree_util.tree_map_with_path(rule, params)


def _is_matrix(params: optax.Params) -> optax.Params:
    """True for every tensor that decays: two axes or more, embeddings included (nanoGPT)."""
    return jax.tree.map(lambda leaf: leaf.ndim >= 2, params)


def clip_by_norm(max_norm: float) -> optax.GradientTransformation:
    """Scales gradients down to a global norm of `max_norm`; 0 leaves them alone.

    Source: torch.nn.utils.clip_grad_norm_, whose quotient has norm + 1e-6 below the line.
    (optax.clip_by_global_norm has no such term, and turns all gradients to 0 when given 0.)
    """
    if max_norm == 0:
        return optax.identity()

    def clip(updates, params=None):
        del params
        scale = jnp.minimum(1.0, max_norm / (wide_norm(updates) + 1e-6))
        return jax.tree.map(lambda leaf: leaf * scale.astype(leaf.dtype), updates)

    return optax.stateless(clip)


def wide_norm(grads: optax.Updates) -> jax.Array:
    """The global norm, summed in float32 at least: bfloat16 would keep two digits of it."""
    return optax.tree.norm(
        jax.tree.map(lambda leaf: leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32)), grads)
    )


class MasterState(NamedTuple):
    """Float32 copies of the parameters, and the state of the optimizer that updates them."""

    masters: optax.Params
    inner: optax.OptState


def with_float32_masters(tx: optax.GradientTransformation) -> optax.GradientTransformation:
    """Lets `tx` update float32 copies of the parameters; the parameters follow, rounded.

    A bfloat16 weight moves only when an update exceeds 1/256 of it: without copies most of the
    late, small updates would be lost. Source: Micikevicius et al. 2018, Mixed Precision Training.
    """

    def init(params):
        masters = optax.tree.cast(params, jnp.float32)
        return MasterState(masters, tx.init(masters))

    def update(grads, state, params=None):
        updates, inner = tx.update(optax.tree.cast(grads, jnp.float32), state.inner, state.masters)
        masters = optax.apply_updates(state.masters, updates)
        # The difference is float32 and within an ulp of exact, and apply_updates rounds the sum
        # to the parameter's dtype: the new parameter is the rounded master, bit for bit.
        steps = jax.tree.map(
            lambda master, leaf: (
                master.astype(leaf.dtype).astype(jnp.float32) - leaf.astype(jnp.float32)
            ),
            masters,
            params,
        )
        return steps, MasterState(masters, inner)

    return optax.GradientTransformation(init, update)
