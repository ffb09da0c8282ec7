"""A GPT-2's weights to start from: its own logits come out, and what is none is refused."""

import json

import gpt2_files
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import runs
import tiny

from gptjax.config.config import model_config
from gptjax.data import batches, hub
from gptjax.run import pretrained
from gptjax.run.resume import resume_plan
from gptjax.system.errors import UserError
from gptjax.update import optim, step

IDS_BT = np.random.default_rng(1).integers(0, 11, (2, 7))


def source_of(folder, **changes):
    return f"gpt2:{gpt2_files.write(folder, **changes)}"


def planned(source, overrides=(), **knobs):
    return resume_plan(tiny.config(init_from=source, out_dir="nowhere", **knobs), overrides)


def logits(plan, ids_BT, n_symbols=11):
    model = model_config(plan.config, n_symbols)
    state = plan.state(n_symbols)
    return tiny.apply(step.model_graph(model), state.params, jnp.asarray(ids_BT, jnp.int32))


@pytest.mark.parametrize("form", ["bare", "prefix", "head", "masks"])
def test_its_logits_are_the_plain_references(tmp_path, form):
    described = gpt2_files.config_json()
    weights = bare = gpt2_files.tensors(**described)
    if form != "bare":
        weights = gpt2_files.with_prefix(bare)
    if form == "head":
        weights["lm_head.weight"] = bare["wte.weight"]
    if form == "masks":
        weights["transformer.h.0.attn.bias"] = np.ones((1, 1, 7, 7), np.float32)
        weights["transformer.h.1.attn.masked_bias"] = np.array(-1e4, np.float32)
    # Whatever the config says of the model, the weights say it better.
    plan = planned(source_of(tmp_path, weights=weights), model__n_layer=3, model__n_head=5)
    wanted = gpt2_files.logits(bare, IDS_BT, **described)
    np.testing.assert_allclose(logits(plan, IDS_BT), wanted, atol=2e-5)
    told = [notice.text for notice in plan.notices]
    assert "model.n_layer: 2, as the weights have it" in told
    assert "model.mlp: gelu_tanh, as the weights have it" in told
    assert plan.parent == {"init_from": plan.config.init_from, "step": 0, "corpus": ""}
    assert {"model.n_layer", "model.bias", "model.mlp"} <= set(plan.overrides)


def test_positions_are_cut_to_the_block_size(tmp_path):
    described = gpt2_files.config_json()
    plan = planned(source_of(tmp_path), model__block_size=4)
    assert plan.config.model.block_size == 4
    assert plan.state(11).params["wpe"]["embedding"].shape == (4, 15)
    wanted = gpt2_files.logits(gpt2_files.tensors(**described), IDS_BT[:, :4], **described)
    np.testing.assert_allclose(logits(plan, IDS_BT[:, :4]), wanted, atol=2e-5)


def test_the_state_is_that_of_a_first_update(tmp_path):
    source = source_of(tmp_path)
    for knobs in ({}, {"model__param_dtype": "bfloat16"}):
        plan = planned(source, **knobs)
        state = plan.state(11)
        model = model_config(plan.config, 11)
        tx = optim.optimizer(plan.config)
        fresh = jax.eval_shape(lambda m=model, tx=tx: step.initial_state(m, tx, 0))
        kinds = [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(fresh)]
        assert [(leaf.shape, leaf.dtype) for leaf in tiny.arrays(state)] == kinds
        assert int(state.step) == 0 and plan.step == 0 and not plan.is_resumed
    # Masters are the weights as they were read.
    read = gpt2_files.tensors(**gpt2_files.config_json())["wte.weight"]
    np.testing.assert_array_equal(state.opt_state.masters["wte"]["embedding"][...], read)


def test_the_exact_gelu_can_be_asked_for(tmp_path):
    source = source_of(tmp_path)
    assert planned(source, ["model.mlp"]).config.model.mlp == "gelu"
    assert planned(source).config.model.mlp == "gelu_tanh"


def test_a_padded_vocabulary_is_the_texts_own(tmp_path):
    """Of 12 symbols one pads: only who says so has them."""
    source = source_of(tmp_path, vocab_size=12)
    assert planned(source, model__vocab_multiple=4).state(11).params
    assert planned(source).state(12).params
    # A multiple that the weights have not is not kept.
    assert planned(source, model__vocab_multiple=64).config.model.vocab_multiple == 1
    with pytest.raises(UserError, match="its vocabulary of 12 is not the text's, of 11 symbols"):
        planned(source).state(11)


@pytest.mark.parametrize(
    ("overrides", "knobs", "words"),
    [
        ((), {"model__block_size": 8}, "model.block_size: 8; gpt2:.* has 7 positions"),
        (["model.n_layer"], {"model__n_layer": 3}, "model.n_layer: 3; the weights of .* have 2"),
        (["model.bias"], {}, "model.bias: False; the weights of .* have True"),
    ],
)
def test_a_config_that_contradicts_the_weights_is_refused(tmp_path, overrides, knobs, words):
    with pytest.raises(UserError, match=words):
        planned(source_of(tmp_path), overrides, **knobs)


def without(name):
    return lambda weights: weights.pop(name)


def changed(name, change):
    return lambda weights: weights.update({name: change(weights[name])})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without("h.1.mlp.c_fc.bias"), r"it has no h\.1\.mlp\.c_fc\.bias"),
        (without("wte.weight"), r"it has no transformer\.wte\.weight"),
        (changed("wpe.weight", lambda a: a[1:]), r"wpe.weight is \(6, 15\), and must be \(7, 15\)"),
        (
            changed("h.0.mlp.c_fc.weight", lambda a: np.ascontiguousarray(a.T)),
            r"c_fc.weight is \(60, 15\), and must be \(15, 60\)",
        ),
        (changed("ln_f.bias", lambda a: a.astype(np.float16)), "ln_f.bias is F16, and must be F32"),
        (lambda w: w.update({"score.weight": w["wte.weight"][:2]}), "it has 'score.weight', which"),
        (lambda w: w.update({"h.2.ln_1.bias": w["ln_f.bias"]}), "it has 'h.2.ln_1.bias', which"),
        (
            lambda w: w.update({"lm_head.weight": w["wte.weight"] + 1}),
            "its lm_head.weight is not its token embedding",
        ),
    ],
)
def test_weights_that_are_not_the_configs_are_refused(tmp_path, change, words):
    weights = gpt2_files.tensors(**gpt2_files.config_json())
    change(weights)
    gpt2_files.write(tmp_path, weights)
    with pytest.raises(UserError, match=f"init_from: gpt2:.*; .*{words}"):
        pretrained.read(f"gpt2:{tmp_path}")


def test_claims_beyond_all_memory_are_refused_before_anything_is_made(tmp_path):
    for changes in ({"n_layer": 10**9}, {"n_embd": 3 * 10**8}, {"vocab_size": 2**30}):
        gpt2_files.write(tmp_path, gpt2_files.tensors(**gpt2_files.SIZES), **changes)
        with pytest.raises(UserError, match="its weights are not those of its config.json"):
            pretrained.read(f"gpt2:{tmp_path}")


def test_numbers_that_are_none_are_refused(tmp_path):
    weights = gpt2_files.tensors(**gpt2_files.SIZES)
    weights["h.0.ln_2.bias"][3] = np.nan
    gpt2_files.write(tmp_path, weights)
    with pytest.raises(UserError, match="ln_2.bias holds numbers that are not finite"):
        planned(f"gpt2:{tmp_path}").state(11)


def test_folders_that_are_none_are_refused(tmp_path):
    gpt2_files.write(tmp_path / "gpt2")
    path = tmp_path / "gpt2" / "config.json"
    for source, words in [
        ("gpt2:", "names no weights; |init_from: gpt2:; names no weights"),
        (f"gpt2:{tmp_path}/none", "no such folder"),
        (f"gpt2:{tmp_path}/gpt2/model.safetensors", "is not a folder"),
        (f"gpt2:{tmp_path}", "config.json; no such file"),
    ]:
        with pytest.raises(UserError, match=words):
            pretrained.read(source)
    path.write_text(json.dumps({**gpt2_files.config_json(), "model_type": "opt"}))
    with pytest.raises(UserError, match="is of no GPT-2 that gptjax has: its model_type is 'opt'"):
        pretrained.read(f"gpt2:{tmp_path}/gpt2")
    path.write_text("no JSON")
    with pytest.raises(UserError, match="config.json; is not JSON"):
        pretrained.read(f"gpt2:{tmp_path}/gpt2")
    with pytest.raises(UserError, match=r"GPT-2's weights are gpt2:FOLDER or gpt2:HUB_ID"):
        planned("gpt2-xl")


def test_a_folder_goes_before_the_hub(tmp_path, monkeypatch):
    gpt2_files.write(tmp_path / "openai-community" / "gpt2")
    asked = []
    monkeypatch.setattr(hub, "folder_of", lambda name, *_, **__: asked.append(name) or tmp_path)
    monkeypatch.chdir(tmp_path)
    assert pretrained.read("gpt2:openai-community/gpt2").vocab_size == 11
    assert not asked
    with pytest.raises(UserError, match="config.json; no such file"):
        pretrained.read("gpt2:openai-community/gpt2-xl")
    assert asked == ["openai-community/gpt2-xl"]


def test_a_gpt2_is_fine_tuned_and_the_run_goes_on_without_its_files(tmp_path, capsys):
    described = gpt2_files.config_json()
    source = source_of(tmp_path / "weights")
    config = tiny.config(
        init_from=source,
        out_dir=str(tmp_path / "run"),
        data__source=gpt2_files.tokens(tmp_path / "tokens"),
        data__fallback="",
        optim__schedule="constant",
        optim__learning_rate=3e-3,
        train__max_iters=6,
        eval__interval=6,
    )
    assert runs.start(config, tmp_path / "run", ["init_from"]) == 0
    printed = capsys.readouterr().out
    assert f"weights of {source}" in printed
    evaluated = [r for r in runs.history(tmp_path / "run") if r["kind"] == "eval"]
    # The first evaluation is of the weights as they came.
    weights, ids = gpt2_files.tensors(**described), np.arange(2800, 3000) % 11
    offsets = batches.sweep_offsets(n_tokens=200, block_size=7, max_tokens=70)
    windows = np.lib.stride_tricks.sliding_window_view(ids, 8)[offsets]
    wanted = gpt2_files.logits(weights, windows[:, :-1], **described)
    normal = np.log(np.exp(wanted).sum(-1))
    picked = np.take_along_axis(wanted, windows[:, 1:, None], -1)[..., 0]
    assert evaluated[0]["val_loss"] == pytest.approx((normal - picked).mean(), abs=1e-4)
    assert evaluated[-1]["val_loss"] < evaluated[0]["val_loss"] - 0.1
    # The same command, once the weights are gone, whatever its file says of the model.
    (tmp_path / "weights").rename(tmp_path / "elsewhere")
    config.train.max_iters = 8
    plan = resume_plan(config, ["init_from", "train.max_iters"])
    assert (plan.step, plan.is_resumed, plan.parent["init_from"]) == (6, True, source)
    assert (plan.config.model.bias, plan.config.model.mlp) == (True, "gelu_tanh")
    tiny.assert_same_bits(plan.state(11), runs.newest(tmp_path / "run").state)


def test_text_of_other_tokens_creates_nothing(tmp_path):
    config = runs.settings(tmp_path, init_from=source_of(tmp_path / "weights"), model__block_size=5)
    n_symbols = len(set(tiny.TEXT))
    words = f"its vocabulary of 11 is not the text's, of {n_symbols} symbols"
    with pytest.raises(UserError, match=words):
        runs.start(config, tmp_path / "run", [])
    assert not (tmp_path / "run").exists()
