"""A ckpt.pt of nanoGPT becomes a run like any other, or is refused and leaves nothing.

Most tests have fake_torch in place of torch. The slow ones want torch and a checkout of nanoGPT.
"""

import functools
import json
import os
import pickle
import re
from pathlib import Path

import fake_torch
import jax
import jax.numpy as jnp
import nanogpt
import nanogpt_files
import numpy as np
import pytest
import runs
import tiny

from gptjax import evaluate, import_weights, plot, sample
from gptjax.config.config import from_flat
from gptjax.model import interop
from gptjax.run import nanogpt_checkpoint
from gptjax.run.metadata import model_config
from gptjax.run.runlog import read_records
from gptjax.system.errors import UserError
from gptjax.update import optim, step

# As many characters as the oracles' vocabulary has symbols, and each of them in both splits.
LETTERS = "abcdefghijk\n"


@pytest.fixture
def torch(monkeypatch):
    return fake_torch.install(monkeypatch)


@pytest.fixture
def letters(tmp_path):
    """A text in a folder like nanoGPT's data/letters."""
    symbols = LETTERS[: nanogpt.Oracle("nobias", "float32").settings["vocab_size"]]
    rng = np.random.default_rng(0)
    folder = tmp_path / "data" / "letters"
    folder.mkdir(parents=True)
    text = symbols + "".join(rng.choice(list(symbols), 2000)) + symbols
    (folder / "input.txt").write_text(text)
    meta = {"vocab_size": len(symbols), "itos": dict(enumerate(sorted(symbols)))}
    (folder / "meta.pkl").write_bytes(pickle.dumps(meta))
    return folder


def imported(tmp_path, data, content=None, **flags):
    """The directory of a run made of a ckpt.pt."""
    path = nanogpt_files.write(tmp_path / "ckpt.pt", content or nanogpt_files.stored(**flags))
    import_weights.import_weights(str(path), str(tmp_path / "run"), data=data)
    return tmp_path / "run"


def test_it_is_a_run_like_any_other(torch, letters, tmp_path, capsys):
    run_dir = imported(tmp_path, str(letters), device="cpu", max_iters=9, eval_interval=1)
    printed = capsys.readouterr().out
    assert "AdamW's state after 7 updates" in printed
    assert "where nanoGPT measured 2.5000" in printed
    assert re.search("not carried over: .*compile", printed)
    found = runs.newest(run_dir)
    assert (found.step, found.meta["val_nats"]) == (7, 2.5)
    assert found.meta["best"] == {"step": 7, "val_nats": 2.5}
    wte = nanogpt_files.stored()["model"]["transformer.wte.weight"]
    assert np.array_equal(found.state.params["wte"]["embedding"][...], wte)
    run, train, evaluated, end = read_records(run_dir / "metrics.jsonl")
    assert run["imported"]["program"] == "nanoGPT" and run["start_step"] == 7
    assert run["parent"]["init_from"] == str(tmp_path / "ckpt.pt")
    assert (train["step"], train["loss"], evaluated["val_loss"]) == (7, None, 2.5)
    assert end["reason"] == "imported"
    assert json.loads((run_dir / "config.json").read_text())["train.batch_size"] == 6
    evaluate.evaluate(str(run_dir), step="best", context=0)
    assert "step 7 on text:input.txt" in capsys.readouterr().out
    given = dict(prompt="a", prompt_file="", num_samples=1, max_new_tokens=5)
    settings = dict(temperature=0.0, top_k=0, seed=1, stride=1)
    sample.sample(str(run_dir), step="best", **given, **settings)
    assert len(capsys.readouterr().out) > 5
    plot.plot([str(run_dir)], over=["updates"], mark=[], png=str(tmp_path / "p.png"))
    assert "best val 2.5000 at step 7" in capsys.readouterr().out


def test_it_goes_on_whatever_the_config_file_says(torch, letters, tmp_path, capsys):
    run_dir = imported(tmp_path, str(letters), device="cpu", max_iters=9)
    requested = tiny.config(train__max_iters=10, model__n_layer=5, model__dropout=0.5)
    assert runs.start(requested, run_dir, ["train.max_iters"]) == 0
    assert runs.newest(run_dir).step == 10
    assert "resumed at step 7" in capsys.readouterr().out
    records = read_records(run_dir / "metrics.jsonl")
    assert records[0]["imported"]["dataset"] == "letters"
    assert [r["step"] for r in records if r["kind"] == "train"] == [7, 10]


def test_weights_and_adamws_state_are_nanogpts(torch, letters, tmp_path):
    """The text may be given by its own path as well."""
    data = f"text:{letters / 'input.txt'}"
    found = runs.newest(imported(tmp_path, data, device="cpu"))
    assert found.meta["config"]["data.source"] == data
    oracle = nanogpt.Oracle("nobias", "float32")
    _, by_hand = oracle.params("init")
    adam = found.state.opt_state[1][0]
    assert int(adam.count) == 7
    tiny.assert_same_bits(found.state.params, by_hand)
    for moment, wanted in ((adam.mu, 0.01), (adam.nu, None)):
        for array, weights in zip(tiny.arrays(moment), tiny.arrays(by_hand), strict=True):
            scaled = np.float32(0.01) * weights
            np.testing.assert_allclose(array, scaled if wanted else scaled**2, rtol=1e-6)


def test_a_padded_vocabulary_of_tokens_is_known_by_its_padding(torch, tmp_path):
    folder = tmp_path / "tokens"
    folder.mkdir()
    for name in ("train.bin", "val.bin"):
        (np.arange(300) % 50).astype("uint16").tofile(folder / name)
    meta = {"vocab_size": 50, "name": "ids", "entropy_nats": None}
    (folder / "meta.json").write_text(json.dumps(meta))
    content = nanogpt_files.stored(device="cpu")
    rng = np.random.default_rng(1)
    width = content["model_args"]["n_embd"]
    wte = rng.normal(size=(64, width)).astype("f4")
    content["model"] |= {interop.TOKENS: wte, interop.HEAD: wte}
    for name in ("exp_avg", "exp_avg_sq"):
        content["optimizer"]["state"][0][name] = wte**2
    content["model_args"]["vocab_size"] = 64
    found = runs.newest(imported(tmp_path, str(folder), content))
    assert found.meta["config"]["model.vocab_multiple"] == 64
    assert model_config(found.meta).vocab_size == 64


def test_weights_of_another_text_are_warned_of(torch, letters, tmp_path, capsys):
    low = nanogpt_files.stored(device="cpu") | {"best_val_loss": np.array(0.1, "f4")}
    imported(tmp_path, str(letters), low)
    words = "WARNING: that is far more; were these weights trained on text:input.txt?"
    assert words in capsys.readouterr().out


def folder_with(letters, name, content):
    (letters / name).write_bytes(content)
    return str(letters)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (lambda letters: "", "--data: 11 symbols of nanoGPT's dataset 'letters'; a ckpt.pt does"),
        (lambda letters: "shakespeare", "data.source: shakespeare; unknown dataset"),
        (lambda letters: "text:/nowhere", "data.source: /nowhere; cannot be read"),
        (lambda letters: f"text:{__file__}", "--data: text:.* symbols; the checkpoint knows 11"),
        (lambda letters: folder_with(letters, "input.txt", b"abc"), "are not those of the meta"),
        (lambda letters: folder_with(letters, "input.txt", b"\xff"), "cannot be read as UTF-8"),
        (lambda letters: folder_with(letters, "meta.pkl", b"\x80"), "--data: .* is not plain data"),
    ],
)
def test_data_that_is_not_its_own_is_refused(torch, letters, tmp_path, data, words):
    argument = data(letters)
    with pytest.raises(UserError, match=words):
        imported(tmp_path, argument)
    assert sorted(os.listdir(tmp_path)) == ["ckpt.pt", "data"]


def test_what_is_refused_leaves_nothing(torch, letters, tmp_path):
    content = nanogpt_files.stored()
    content["model"].pop("transformer.ln_f.weight")
    with pytest.raises(UserError, match="it has no transformer.ln_f.weight"):
        imported(tmp_path, str(letters), content)
    (letters / "input.txt").rename(letters / "other.txt")
    with pytest.raises(UserError, match="has no input.txt beside its meta.pkl"):
        imported(tmp_path, str(letters))
    assert sorted(os.listdir(tmp_path)) == ["ckpt.pt", "data"]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine").write_text("")
    with pytest.raises(UserError, match="--out_dir: .*run; is not empty"):
        imported(tmp_path, str(letters))
    assert os.listdir(tmp_path / "run") == ["mine"]


@pytest.mark.parametrize(("size", "words"), [(65, "tiny_shakespeare"), (50304, "train.bin")])
def test_how_to_get_the_vocabulary_is_said(size, words):
    found = nanogpt_checkpoint.NanoGPTCheckpoint(Path("a"), {}, {}, [], size, "owt")
    with pytest.raises(UserError, match=words):
        import_weights._source("", found)


@pytest.fixture(params=["nobias", "bias"])
def trained(request, tmp_path):
    """(ckpt.pt, out_dir) of 20 updates by nanoGPT's own train.py."""
    pytest.importorskip("torch")
    nanogpt_files.shakespeare()
    sizes = dict(n_layer=2, n_head=3, n_embd=48, block_size=32, batch_size=6)
    flags = dict(max_iters=20, eval_interval=20, eval_iters=5, warmup_iters=5, lr_decay_iters=40)
    flags |= dict(gradient_accumulation_steps=2, dropout=0.0, bias=request.param == "bias")
    flags |= dict(out_dir=tmp_path / "theirs", **sizes)
    nanogpt_files.run("train.py", "config/train_shakespeare_char.py", **flags)
    return tmp_path / "theirs" / "ckpt.pt"


@pytest.mark.slow
def test_with_nanogpt_itself_ten_more_updates_are_the_same(trained, tmp_path, monkeypatch):
    folder = nanogpt_files.shakespeare()
    import_weights.import_weights(str(trained), str(tmp_path / "run"), data=str(folder))
    found = runs.newest(tmp_path / "run")
    rng = np.random.default_rng(0)
    ids = np.fromfile(folder / "train.bin", np.uint16).astype(np.int64)
    T, A, B = found.meta["config"]["model.block_size"], 2, 6
    offsets_KAB = rng.integers(0, len(ids) - T, (10, A, B))
    x_KABT, y_KABT = (ids[offsets_KAB[..., None] + np.arange(T) + shift] for shift in (0, 1))
    wanted, weights = nanogpts_updates(trained, x_KABT, y_KABT, monkeypatch)
    config = from_flat(found.meta["config"], origin="test")
    graph = step.model_graph(model_config(found.meta))
    update = jax.jit(functools.partial(step.train_step, graph, optim.optimizer(config), None))
    state, losses = found.state, []
    for x_ABT, y_ABT in zip(x_KABT, y_KABT, strict=True):
        state, metrics = update(state, jnp.asarray(x_ABT), jnp.asarray(y_ABT))
        losses.append(float(metrics["loss"]))
    np.testing.assert_allclose(losses, wanted, rtol=0, atol=1e-5)
    assert losses[-1] != losses[0]
    for name, array in interop.from_params(state.params, model_config(found.meta)).items():
        np.testing.assert_allclose(array, weights[name], rtol=0, atol=1e-5, err_msg=name)


def nanogpts_updates(ckpt, x_KABT, y_KABT, monkeypatch):
    """The losses of nanoGPT's own model and optimizer, resumed by its rules, and the weights."""
    import torch

    monkeypatch.syspath_prepend(str(nanogpt_files.CHECKOUT))
    import model as nanogpts

    stored = torch.load(ckpt, map_location="cpu")
    flags = stored["config"]
    model = nanogpts.GPT(nanogpts.GPTConfig(**stored["model_args"]))
    model.load_state_dict(stored["model"])
    betas = (flags["beta1"], flags["beta2"])
    adamw = model.configure_optimizers(flags["weight_decay"], flags["learning_rate"], betas, "cpu")
    adamw.load_state_dict(stored["optimizer"])
    peak, floor = flags["learning_rate"], flags["min_lr"]
    span, losses = flags["lr_decay_iters"] - flags["warmup_iters"], []
    for i, (x_ABT, y_ABT) in enumerate(zip(x_KABT, y_KABT, strict=True), stored["iter_num"]):
        passed = (i - flags["warmup_iters"]) / span
        for group in adamw.param_groups:
            group["lr"] = floor + 0.5 * (1 + np.cos(np.pi * passed)) * (peak - floor)
        loss = 0.0
        for x_BT, y_BT in zip(x_ABT, y_ABT, strict=True):
            micro = model(torch.from_numpy(x_BT), torch.from_numpy(y_BT))[1] / len(x_ABT)
            micro.backward()
            loss += micro.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), flags["grad_clip"])
        adamw.step()
        adamw.zero_grad()
        losses.append(loss)
    return losses, {name: tensor.numpy() for name, tensor in model.state_dict().items()}
