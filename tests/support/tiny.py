"""Models, texts and runs small enough for a test; every axis has a size of its own."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from flax import nnx

from gptjax.config import config as config_module
from gptjax.config.config import GPTConfig
from gptjax.data.tokenizer import CharTokenizer
from gptjax.run.ledger import Ledger
from gptjax.update import optim, step

VOCABULARY = 11

TEXT = "".join(f"{i}: the {i % 7} cats sat on {i * i % 31} mats.\n" for i in range(300))


def model_config(**changes) -> GPTConfig:
    """Two blocks of three heads, five wide each; seven tokens of context."""
    values = dict(n_layer=2, n_head=3, n_embd=15, block_size=7, dropout=0.0, bias=True)
    values |= dict(dtype="float32", param_dtype="float32", vocab_size=VOCABULARY, follower_rows=200)
    plain = config_module.model_config(config_module.default_config(), VOCABULARY)
    return dataclasses.replace(plain, **{**values, **changes})


# Everything that the modern recipe does otherwise.
MODERN = dict(
    norm="rmsnorm",
    position="rotary",
    mlp="relu2",
    qk_norm=True,
    tie_embeddings=False,
    token_shift=True,
    zero_residual=True,
)


def modern_config(**changes) -> GPTConfig:
    """As model_config, with heads of an even width."""
    return model_config(**{**MODERN, "n_embd": 18, "bias": False, **changes})


def config(**knobs) -> ml_collections.ConfigDict:
    """A config for a run of a few updates; knobs are given as model__n_layer=2."""
    values = {
        "model.n_layer": 2,
        "model.n_head": 3,
        "model.n_embd": 15,
        "model.block_size": 7,
        "optim.warmup_iters": 2,
        "train.max_iters": 12,
        "train.batch_size": 6,
        "eval.interval": 5,
        "eval.max_tokens": 70,
        "checkpoint.interval": 5,
        "log.interval": 2,
        "mesh.data": 1,
    } | {name.replace("__", "."): value for name, value in knobs.items()}
    made = config_module.default_config()
    for name, value in values.items():
        config_module.set_knob(made, name, value)
    config_module.validate(made)
    return made


def description(settings: ml_collections.ConfigDict) -> dict:
    """What train.py stores beside the arrays of a run on a text of VOCABULARY symbols."""
    return {
        "config": config_module.flat(settings),
        "overrides": [],
        "tokenizer": CharTokenizer("abcdefghijk"[:VOCABULARY]).to_json(),
        "corpus": {
            "name": "text:letters.txt",
            "sha256": "0" * 64,
            "requested": "text:letters.txt",
            "fallback_reason": "",
            "floor_nats": None,
        },
        "val_sha256": "0" * 64,
        "best": {"step": -1, "val_nats": None},
        "parent": None,
        "machine": {"platform": "cpu", "device": "cpu", "n_devices": 1, "host_cores": 2},
        "ledger": Ledger().to_json(),
    }


def parts(model: GPTConfig, settings: ml_collections.ConfigDict):
    """(graph, optimizer, state before the first update)."""
    tx = optim.optimizer(settings)
    # A test may put other weights into the state that it gets.
    params = jax.tree.map(lambda leaf: leaf, _initial_params(_as_initialized(model), settings.seed))
    return _graph(model), tx, step.first_state(params, tx)


_graph = functools.cache(step.model_graph)


def _as_initialized(model: GPTConfig) -> GPTConfig:
    """The model with whatever does not change its initial weights as it is by default."""
    plain = config_module.model_config(config_module.default_config(), model.vocab_size)
    unimportant = ("dropout", "dtype", "attention", "attention_rows", "dropout_generator")
    unimportant += ("remat", "scan_layers")
    return dataclasses.replace(model, **{name: getattr(plain, name) for name in unimportant})


@functools.cache
def _initial_params(model: GPTConfig, seed: int) -> nnx.State:
    """Not in one program, which would be compiled anew for each model that differs at all."""
    return step.initial_state(model, optim.optimizer(config()), seed).params


def batch(*shape: int, seed: int = 0) -> tuple[jax.Array, jax.Array]:
    """Random inputs and targets."""
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, VOCABULARY, (2, *shape))
    return jnp.asarray(x, jnp.int32), jnp.asarray(y, jnp.int32)


def apply(graph: nnx.GraphDef, params: nnx.State, ids_BT, dropout_key=None) -> jax.Array:
    """The model's logits."""
    return _logits(graph, params, ids_BT, dropout_key)


@functools.partial(jax.jit, static_argnums=0)
def _logits(graph, params, ids_BT, dropout_key):
    rngs = None if dropout_key is None else nnx.Rngs(dropout=dropout_key)
    return nnx.merge(graph, params)(ids_BT, rngs=rngs)


def arrays(tree) -> list[np.ndarray]:
    """The leaves of a pytree, on the host."""
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def assert_same_bits(found, wanted) -> None:
    """Every leaf equal, bit for bit."""
    for a, b in zip(arrays(found), arrays(wanted), strict=True):
        assert a.dtype == b.dtype and a.tobytes() == b.tobytes()
