"""nanoGPT's ckpt.pt, read as a config and a state; and what of ours it cannot hold."""

import fake_torch
import nanogpt
import nanogpt_files
import numpy as np
import pytest
import tiny

from gptjax.config.config import default_config, from_flat, model_config, set_knob
from gptjax.run import nanogpt_checkpoint
from gptjax.system.errors import UserError


@pytest.fixture(autouse=True)
def torch(monkeypatch):
    return fake_torch.install(monkeypatch)


def read(folder, content):
    return nanogpt_checkpoint.read(nanogpt_files.write(folder / "ckpt.pt", content))


def test_a_run_goes_on_with_nanogpts_settings(tmp_path):
    found = read(tmp_path, nanogpt_files.stored())
    config = found.config("out/new")
    assert (found.step, found.val_nats, found.dataset) == (7, 2.5, "letters")
    settings = nanogpt.Oracle("nobias", "float32").settings
    assert found.vocab_size == settings["vocab_size"]
    # The model's own arguments, not the flags of the last command.
    assert config.model.n_embd == settings["n_embd"] and config.model.bias is False
    assert (config.train.batch_size, config.train.grad_accum_steps) == (6, 2)
    assert (config.optim.lr_decay_iters, config.optim.warmup_iters) == (1500, 100)
    # AdamW's, from its state, not from the flags.
    optim = config.optim
    assert (optim.beta1, optim.beta2, optim.weight_decay) == (0.9, 0.99, 0.1)
    assert config.data.fallback == "" and config.out_dir == "out/new"
    assert "compile" in found.left_out and "learning_rate" not in found.left_out


def test_its_state_is_the_one_of_the_next_update(tmp_path):
    content = nanogpt_files.stored()
    found = read(tmp_path, content)
    config = found.config("out/new")
    model = model_config(config, found.vocab_size)
    state = found.state(config, model)
    assert int(state.step) == 7
    _, tx, fresh = tiny.parts(model, config)
    shapes = [(leaf.shape, leaf.dtype) for leaf in tiny.arrays(fresh)]
    assert [(leaf.shape, leaf.dtype) for leaf in tiny.arrays(state)] == shapes
    wte = content["model"]["transformer.wte.weight"]
    assert np.array_equal(state.params["wte"]["embedding"][...], wte)


@pytest.mark.parametrize(
    "loss", [1e9, np.array(np.nan), np.array(np.inf, np.float32), float("inf")]
)
def test_without_an_evaluation_there_is_no_best(tmp_path, loss):
    assert read(tmp_path, nanogpt_files.stored() | {"best_val_loss": loss}).val_nats is None


def without(name):
    return lambda content: content.pop(name)


def part(name, **values):
    return lambda content: content[name].update(values)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without("optimizer"), "it has no optimizer"),
        (lambda content: content.update(model=[1]), "its model is no dictionary"),
        (lambda content: content.update(iter_num=1.5), r"its iter_num is 1\.5"),
        (lambda content: content.update(iter_num=True), "its iter_num is True"),
        (lambda content: content.update(iter_num=2**31), "its iter_num is 2147483648"),
        (lambda content: content.update(best_val_loss="low"), "its best_val_loss is 'low'"),
        (lambda content: content.update(best_val_loss=10**400), "its best_val_loss is 1000"),
        (lambda content: content.update(best_val_loss=np.ones(2)), "its best_val_loss is array"),
        (part("config", dataset=3), "its dataset is 3"),
        (part("model_args", vocab_size=2**40), "its vocab_size 1099511627776"),
        (part("config", batch_size="12"), "its batch_size is '12', which is not an integer"),
        (lambda content: content["config"].pop("min_lr"), "its config has no min_lr"),
        (part("config", lr_decay_iters=0), "its lr_decay_iters is 0"),
        (part("optimizer", param_groups=[]), "its optimizer|values to unpack"),
    ],
)
def test_what_is_not_nanogpts_is_refused(tmp_path, change, words):
    content = nanogpt_files.stored()
    change(content)
    start = "--from: .*ckpt.pt; is no checkpoint of nanoGPT's train.py: .*"
    with pytest.raises(UserError, match=start + words):
        read(tmp_path, content)


def test_a_list_is_no_checkpoint(tmp_path):
    with pytest.raises(UserError, match="it has no model"):
        read(tmp_path, [1, 2])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"n_layer": 10**9}, r"it has no transformer\.h\.\d"),
        ({"n_embd": 30_000_000}, "transformer.wte.weight is float32"),
        ({"bias": True}, "it has no transformer.h.0.ln_1.bias"),
    ],
)
def test_weights_of_another_model_are_refused(tmp_path, changes, words):
    content = nanogpt_files.stored()
    content["model_args"] |= changes | {"n_head": 1}
    found = read(tmp_path, content)
    config = found.config("out/new")
    with pytest.raises(UserError, match=f"is no checkpoint of nanoGPT's train.py: {words}"):
        found.state(config, model_config(config, found.vocab_size))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"n_layer": 0}, "model.n_layer: 0; must be"),
        ({"n_head": 4}, "is not divisible by model.n_head 4"),
    ],
)
def test_settings_that_break_a_rule_are_refused_by_their_knob(tmp_path, changes, words):
    content = nanogpt_files.stored()
    content["model_args"] |= changes
    with pytest.raises(UserError, match=words):
        read(tmp_path, content).config("out/new")


@pytest.mark.parametrize(
    ("knob", "value"),
    [
        ("model.norm", "rmsnorm"),
        ("model.position", "rotary"),
        ("model.mlp", "relu2"),
        ("model.qk_norm", True),
        ("model.tie_embeddings", False),
        ("model.token_shift", True),
        ("model.followers", 2),
        ("model.param_dtype", "bfloat16"),
        ("optim.name", "muon"),
        ("optim.schedule", "linear"),
    ],
)
def test_what_nanogpt_has_not_is_refused_by_its_knob(knob, value):
    config = default_config()
    nanogpt_checkpoint.check_has_counterpart(config)
    set_knob(config, knob, value)
    with pytest.raises(UserError, match=f"{knob}: {value}; a ckpt.pt of nanoGPT cannot hold it"):
        nanogpt_checkpoint.check_has_counterpart(config)


@pytest.mark.parametrize(
    ("knob", "value"), [("model.zero_residual", True), ("optim.schedule", "constant")]
)
def test_what_the_weights_do_not_tell_is_let_through(knob, value):
    config = default_config()
    set_knob(config, knob, value)
    nanogpt_checkpoint.check_has_counterpart(from_flat({knob: value}, origin="test"))
