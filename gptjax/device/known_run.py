"""Does a device compute right? Five updates of a tiny model whose losses are known."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from gptjax.config.config import GPTConfig, default_config, model_config
from gptjax.update import optim, step

# The mean loss of each update's batch, nats. Computed in float64 by `losses` under JAX's
# jax_enable_x64 (jax 0.10.2, flax 0.12.8, optax 0.2.8, on a CPU), as tests/device/test_known_run.py
# does again; the update itself is held against nanoGPT's in tests/update/test_parity.py.
EXPECTED = (3.3751020, 3.3115608, 3.2581674, 3.1740942, 3.1547756)

# float32 was off by up to 1.5e-6 (with and without XLA's optimizations, with one core and two);
# another processor's sums may be in another order. bfloat16 is off by 7e-4.
TOLERANCE = 2e-5

_VOCABULARY = 29


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a device made of the five updates, and whether that is what it should be."""

    device: str
    losses: tuple[float, ...]

    @property
    def off_by(self) -> float:
        """The largest difference to the expected losses, nats; NaN if a loss is."""
        return float(np.max(np.abs(np.subtract(self.losses, EXPECTED))))

    @property
    def is_right(self) -> bool:
        """Whether all of them are as expected."""
        return self.off_by <= TOLERANCE

    def to_json(self) -> dict[str, Any]:
        """All of it, with what was expected, as JSON has it."""
        return {
            **dataclasses.asdict(self),
            "expected": EXPECTED,
            "tolerance": TOLERANCE,
            "off_by": self.off_by,
            "is_right": self.is_right,
            "words": self.in_words(),
        }

    def in_words(self) -> str:
        """A line for people."""
        if self.is_right:
            last = f"{self.losses[-1]:.4f}"
            return f"{self.device}: ok, five updates end at loss {last} as they should"
        return (
            f"{self.device}: off by {self.off_by:.2g}: something is broken "
            f"(losses {', '.join(f'{loss:.4f}' for loss in self.losses)}; "
            f"expected {', '.join(f'{loss:.4f}' for loss in EXPECTED)})"
        )


def known_run(device: jax.Device) -> Outcome:
    """Makes the updates on a device, in float32, with full products where TF32 is the default."""
    return Outcome(str(device), losses(device, "float32"))


def losses(device: jax.Device, dtype: str) -> tuple[float, ...]:
    """The losses of the five updates, each before its update is made; nats per token."""
    config = _config()
    # Not a config of a run: float64, which gives the expected losses, is none of its types.
    model = dataclasses.replace(model_config(config, _VOCABULARY), dtype=dtype, param_dtype=dtype)
    graph, tx = step.model_graph(model), optim.optimizer(config)
    train_steps = functools.partial(step.train_steps, graph, tx, None, config.model.block_size)
    with jax.default_device(device), jax.default_matmul_precision("highest"):
        state = drawn_state(model, tx)
        n_updates = np.int32(config.train.max_iters)
        _, metrics = jax.jit(train_steps)(_tokens(), state, _offsets(config), n_updates)
    return tuple(float(loss) for loss in metrics["loss"])


def drawn_state(model: GPTConfig, tx: optax.GradientTransformation) -> step.TrainState:
    """Weights of nanoGPT's scale, drawn by numpy: the same for all devices, types and versions."""
    rng = np.random.default_rng(1)

    def weights(leaf):
        is_scale = leaf.ndim == 1  # The model has no biases.
        drawn = np.ones(leaf.shape) if is_scale else 0.02 * rng.standard_normal(leaf.shape)
        return jnp.asarray(drawn, leaf.dtype)

    shapes = jax.eval_shape(functools.partial(step.initial_state, model, tx, 0))
    params = jax.tree.map(weights, shapes.params)
    # Zeros but for the counts, which are zero as well.
    opt_state = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes.opt_state)
    return step.TrainState(step=jnp.zeros((), jnp.int32), params=params, opt_state=opt_state)


def _config() -> ml_collections.ConfigDict:
    """nanoGPT's model and optimizer, with a rate at which five updates move the loss."""
    config = default_config()
    config.update(
        seed=1,
        model=dict(n_layer=1, n_head=2, n_embd=32, block_size=16, dropout=0.0),
        optim=dict(learning_rate=1e-2, min_lr=1e-3, warmup_iters=2, beta2=0.99),
        train=dict(max_iters=5, batch_size=6),
    )
    return config


def _tokens() -> jax.Array:
    """A text of `_VOCABULARY` symbols in which each follows from the two before it."""
    ids = [1, 2]
    while len(ids) < 600:
        ids.append((5 * ids[-1] + 3 * ids[-2] + 7) % _VOCABULARY)
    return jnp.asarray(np.array(ids, np.uint8))


def _offsets(config: ml_collections.ConfigDict) -> np.ndarray:
    """Where the windows of each update start; spread over the text by steps of a prime number."""
    n_updates, n_sequences = config.train.max_iters, config.train.batch_size
    starts = 97 * np.arange(n_updates * n_sequences) % 580
    return starts.reshape(n_updates, 1, n_sequences).astype(np.int32)
