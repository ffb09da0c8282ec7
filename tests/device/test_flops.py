"""Counted arithmetic and looked-up peaks."""

from pathlib import Path
from unittest import mock

import jax
import pytest
import tiny

from gptjax.config.config import model_config
from gptjax.config.config_file import load_config
from gptjax.device import flops, formula
from gptjax.model.gpt import n_parameters
from gptjax.update import optim, step


def by_formula(model, n_params, n_tokens):
    shape = dict(n_layer=model.n_layer, n_embd=model.n_embd, block_size=model.block_size)
    return formula.formula_flops(**shape, n_params=n_params, n_tokens=n_tokens)


CONFIGS = sorted((Path(__file__).parent.parent.parent / "configs").glob("*.py"))
# Those that take long to be traced.
LONG = {"gpt2_350m", "gpt2_774m", "gpt2_1558m", "finetune_shakespeare", "eval_gpt2"}


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=[pytest.mark.slow] * (path.stem in LONG))
        for path in CONFIGS
    ],
)
def test_xlas_count_agrees_with_the_formula(path):
    config = load_config(str(path), {})
    config.model.attention_rows = config.model.block_size  # as program.py counts
    is_gpt2s = config.data.source.startswith("tokens:") or config.data.tokenizer == "gpt2"
    n_symbols = 50_257 if is_gpt2s else 65
    model = model_config(config, n_symbols)
    state = jax.eval_shape(lambda: step.initial_state(model, optim.optimizer(config), 0))
    n_params = n_parameters(state.params)
    n_micro = config.train.grad_accum_steps
    counted = flops.xla_flops(
        step.model_graph(model),
        state.params,
        block_size=model.block_size,
        batch_size=config.train.batch_size,
        n_micro=n_micro,
    )
    n_tokens = config.train.batch_size * model.block_size
    assert 0.95 < counted / by_formula(model, n_params, n_tokens) < 1.10


def test_formula_for_the_laptop_recipe():
    model = tiny.model_config(
        n_layer=4, n_head=4, n_embd=128, block_size=64, bias=False, vocab_size=65
    )
    # (6 · 795,904 + 12 · 4 · 128 · 64) · 768 tokens; 3.97 GFLOP, as PERFORMANCE.md has it.
    assert by_formula(model, 795_904, 768) == 3_969_515_520


def test_accumulation_multiplies_the_micro_batch():
    graph, _, state = tiny.parts(tiny.model_config(), tiny.config())

    def counted(**batch):
        return flops.xla_flops(graph, state.params, block_size=7, **batch)

    whole, parts = counted(batch_size=12, n_micro=1), counted(batch_size=12, n_micro=3)
    assert parts == 3 * counted(batch_size=4, n_micro=1)
    assert whole < parts < 2 * whole  # the optimizer's part is counted once per micro-batch


def test_the_count_is_the_same_however_the_model_is_computed(tmp_path):
    _, _, state = tiny.parts(tiny.model_config(), tiny.config())
    counts = {
        flops.update_flops(
            tiny.model_config(**changes), state.params, batch_size=12, n_micro=1, folder=None
        )
        for changes in (
            {"attention": "xla"},
            {"attention": "cudnn"},
            {"attention_rows": 2},
            {"remat": True, "scan_layers": True},
        )
    }
    assert len(counts) == 1


def test_a_count_is_remembered_for_just_this_update(tmp_path, monkeypatch):
    # Whoever runs this may have saved a file a second ago.
    monkeypatch.setattr(flops.cache, "source_digest", lambda: "this version")
    config = tiny.model_config()
    _, _, state = tiny.parts(config, tiny.config())

    def counted(config=config, *, batch_size=12, n_micro=1):
        sizes = dict(batch_size=batch_size, n_micro=n_micro)
        return flops.update_flops(config, state.params, folder=tmp_path, **sizes)

    first = counted()
    with mock.patch.object(flops, "xla_flops", return_value=1.0):
        assert counted() == first > 1
        assert counted(batch_size=6) == counted(n_micro=3) == 1
        assert counted(tiny.model_config(bias=False)) == 1
        with monkeypatch.context() as patch:
            patch.setattr(flops.cache, "source_digest", lambda: "another version")
            assert counted() == 1
            # What was written since the start is no version: nothing is remembered of it.
            patch.setattr(flops.cache, "source_digest", lambda: "")
            assert counted() == 1
        (tmp_path / "flops.json").write_text("{broken")
        assert counted() == 1
