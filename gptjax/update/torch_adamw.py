"""AdamW's state: as torch keeps it for nanoGPT, by the number of a parameter, and as optax does."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import ml_collections
import numpy as np
import optax

from gptjax.config.config import GPTConfig
from gptjax.model import interop
from gptjax.update.optim import learning_rate, optimizer

# What torch's AdamW can do otherwise and nanoGPT's does not. (foreach, fused and capturable say
# how it computes the same.)
_FIXED: dict[str, Any] = {"eps": 1e-8, "amsgrad": False, "maximize": False}

# What torch keeps beside for each group; torch takes other values for its own when it loads them.
_OTHERS: dict[str, Any] = {
    "foreach": None,
    "capturable": False,
    "differentiable": False,
    "fused": None,
    "decoupled_weight_decay": True,
}


@dataclasses.dataclass(frozen=True)
class AdamW:
    """What AdamW remembers, under nanoGPT's names of the weights, and its settings.

    Attributes:
      step: its own count of updates: with float16, nanoGPT leaves some out.
      mean, mean_square: of each weight's gradient.
    """

    step: int
    beta1: float
    beta2: float
    weight_decay: float
    mean: dict[str, np.ndarray]
    mean_square: dict[str, np.ndarray]


def settings(stored: Any) -> tuple[float, float, float]:
    """beta1, beta2 and weight_decay in the state dict of nanoGPT's optimizer.

    Raises:
      ValueError: if it is of another optimizer.
    """
    with _taken_apart():
        decaying, others = stored["param_groups"]
        (beta1, beta2), decay = decaying["betas"], decaying["weight_decay"]
        for group in (decaying, others):
            for name, value in _FIXED.items():
                if group.get(name, value) != value:
                    raise ValueError(f"its optimizer has {name}={group[name]!r:.20}, not {value}")
        if not all(type(value) is float for value in (beta1, beta2, decay)):
            raise ValueError("its optimizer has betas or a weight_decay that are no numbers")
        if list(others["betas"]) != [beta1, beta2] or others["weight_decay"] != 0:
            raise ValueError("its optimizer treats biases and norms otherwise than nanoGPT's")
    return beta1, beta2, decay


def from_torch(stored: Any, weights: Mapping[str, np.ndarray]) -> AdamW:
    """What the state dict of nanoGPT's optimizer says of its weights.

    Raises:
      ValueError: if it is of another optimizer, or lacks something.
    """
    order, numbers = _numbered(weights), list(range(len(weights)))
    n_decaying = sum(array.ndim >= 2 for array in weights.values())
    beta1, beta2, decay = settings(stored)
    with _taken_apart():
        groups = [list(group["params"]) for group in stored["param_groups"]]
        if groups != [numbers[:n_decaying], numbers[n_decaying:]]:
            raise ValueError("its optimizer is not of these weights, grouped as nanoGPT does")
        entries = {name: stored["state"][n] for n, name in enumerate(order)}
        steps = {float(entry["step"]) for entry in entries.values()}
        mean = {name: entry["exp_avg"] for name, entry in entries.items()}
        mean_square = {name: entry["exp_avg_sq"] for name, entry in entries.items()}
    (step,) = steps if len(steps) == 1 else (math.nan,)
    if not (step.is_integer() and 0 <= step < 2**31):
        raise ValueError(f"its optimizer has made {sorted(steps)[:3]} updates")
    return AdamW(int(step), beta1, beta2, decay, mean, mean_square)


def to_torch(adamw: AdamW, weights: Mapping[str, np.ndarray], *, rate: float) -> dict[str, Any]:
    """The state dict that nanoGPT's optimizer loads; `rate` is the next update's."""
    order = _numbered(weights)
    n_decaying = sum(array.ndim >= 2 for array in weights.values())
    groups = [
        {
            "weight_decay": decay,
            "lr": rate,
            "betas": (adamw.beta1, adamw.beta2),
            **_FIXED,
            **_OTHERS,
            "params": list(range(first, end)),
        }
        for decay, first, end in (
            (adamw.weight_decay, 0, n_decaying),
            (0.0, n_decaying, len(order)),
        )
    ]
    state = {
        number: {
            "step": np.array(adamw.step, np.float32),
            "exp_avg": adamw.mean[name],
            "exp_avg_sq": adamw.mean_square[name],
        }
        for number, name in enumerate(order)
    }
    return {"state": state, "param_groups": groups}


def to_optax(
    adamw: AdamW, config: ml_collections.ConfigDict, model: GPTConfig, *, step: int
) -> optax.OptState:
    """The optimizer state of a config, before update `step`, in which AdamW remembers the same.

    Raises:
      ValueError: if a mean has another shape than its weight, or is not finite.
    """
    mean = interop.to_params(adamw.mean, model)
    mean_square = interop.to_params(adamw.mean_square, model)
    if not all((leaf >= 0).all() for leaf in jax.tree.leaves(mean_square)):
        raise ValueError("its optimizer holds mean squares below 0")
    replaced = {
        optax.ScaleByAdamState: optax.ScaleByAdamState(
            np.array(adamw.step, np.int32), mean, mean_square
        ),
        # The learning rate follows the run's updates, of which AdamW may have left some out.
        optax.ScaleByScheduleState: optax.ScaleByScheduleState(np.array(step, np.int32)),
    }
    return jax.tree.map(
        lambda node: replaced[type(node)],
        jax.eval_shape(optimizer(config).init, mean),
        is_leaf=lambda node: type(node) in replaced,
    )


def from_optax(
    opt_state: optax.OptState, config: ml_collections.ConfigDict, model: GPTConfig
) -> AdamW:
    """What AdamW remembers in the optimizer state of a config whose only rule it is."""

    def is_adamw(node: Any) -> bool:
        return isinstance(node, optax.ScaleByAdamState)

    (found,) = filter(is_adamw, jax.tree.leaves(opt_state, is_leaf=is_adamw))
    optim = config.optim
    return AdamW(
        int(found.count),
        optim.beta1,
        optim.beta2,
        optim.weight_decay,
        interop.from_params(found.mu, model),
        interop.from_params(found.nu, model),
    )


def next_rate(config: ml_collections.ConfigDict, step: int) -> float:
    """The learning rate of update `step`."""
    return float(learning_rate(config)(np.array(step, np.int32)))


def _numbered(weights: Mapping[str, np.ndarray]) -> list[str]:
    """Names in the order in which nanoGPT's optimizer counts them: those that decay come first."""
    return sorted(weights, key=lambda name: weights[name].ndim < 2)


@contextlib.contextmanager
def _taken_apart() -> Iterator[None]:
    """Turns what is raised where something is missing, or of another type, into a ValueError."""
    try:
        yield
    except (KeyError, TypeError, AttributeError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:80]
        raise ValueError(f"its optimizer is not nanoGPT's AdamW ({reason})") from error
