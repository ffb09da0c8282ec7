"""How much an update computes, and with how many weights."""

from __future__ import annotations

import dataclasses

import ml_collections
from flax import nnx

from gptjax.config.config import GPTConfig
from gptjax.device import flops
from gptjax.device.formula import formula_flops
from gptjax.model.gpt import n_parameters
from gptjax.system import cache


@dataclasses.dataclass(frozen=True)
class Costs:
    """An update's.

    Attributes:
      n_params: weights without position embeddings.
      flops, formula_flops: as XLA counts them and by the formula.
    """

    n_params: int
    flops: float
    formula_flops: float


def count_costs(config: ml_collections.ConfigDict, model: GPTConfig, params: nnx.State) -> Costs:
    """The costs of a config's update of such weights, or of their shapes."""
    n_params, train = n_parameters(params), config.train
    return Costs(
        n_params,
        flops.update_flops(
            model,
            params,
            batch_size=train.batch_size,
            n_micro=train.grad_accum_steps,
            folder=cache.folder(),
        ),
        formula_flops(
            n_layer=model.n_layer,
            n_embd=model.n_embd,
            block_size=model.block_size,
            n_params=n_params,
            n_tokens=train.batch_size * model.block_size,
        ),
    )
