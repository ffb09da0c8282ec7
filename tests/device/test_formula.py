"""Formulas, against models and against nanoGPT's own words."""

import jax
import pytest
import tiny

from gptjax.device import formula
from gptjax.model.gpt import n_parameters
from gptjax.update import optim, step


@pytest.mark.parametrize("bias", [False, True])
def test_parameters_are_those_of_a_model(bias):
    shape = dict(n_layer=3, n_embd=10, vocab_size=17, bias=bias)
    model = tiny.model_config(n_head=2, block_size=7, **shape)
    state = jax.eval_shape(lambda: step.initial_state(model, optim.optimizer(tiny.config()), 0))
    assert formula.nanogpt_params(**shape) == n_parameters(state.params)


def test_parameters_are_those_nanogpt_prints():
    """0.80 M and 10.65 M; 802,944 + 1,152 tensors' values less 64 x 128 of positions."""
    laptop = formula.nanogpt_params(n_layer=4, n_embd=128, vocab_size=65, bias=False)
    assert laptop == 802_944 + 1_152 - 64 * 128
    default = formula.nanogpt_params(n_layer=6, n_embd=384, vocab_size=65, bias=False)
    assert default == 10_740_096 + 4_992 - 256 * 384
