"""A run becomes a ckpt.pt that nanoGPT takes, or is refused and leaves nothing."""

import json
import os
import shlex
import sys

import fake_torch
import nanogpt_files
import numpy as np
import pytest
import runs
import tiny

from gptjax import export_weights, import_weights
from gptjax.model import interop
from gptjax.run import torch_file
from gptjax.system.errors import UserError


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(config, run directory): six updates of twelve, with dropout, whose masks follow the step."""
    folder = tmp_path_factory.mktemp("trained")
    config = runs.settings(folder, optim__lr_decay_iters=12, train__max_iters=6)
    assert runs.start(config, folder / "run") == 0
    return config, folder / "run"


@pytest.fixture
def torch(monkeypatch):
    return fake_torch.install(monkeypatch)


def export(run_dir, path, *, step="latest", dataset="letters"):
    export_weights.export_weights(str(run_dir), step=step, to=str(path), dataset=dataset)
    return path


def test_a_round_trip_changes_no_bit(torch, trained, tmp_path):
    config, run_dir = trained
    first = export(run_dir, tmp_path / "ckpt.pt")
    import_weights.import_weights(str(first), str(tmp_path / "run"), data=config.data.source)
    ours, theirs = runs.newest(run_dir), runs.newest(tmp_path / "run")
    tiny.assert_same_bits(theirs.state, ours.state)
    assert theirs.meta["leaves"] == ours.meta["leaves"]
    assert theirs.meta["best"]["val_nats"] == ours.meta["best"]["val_nats"]
    second = export(tmp_path / "run", tmp_path / "again.pt")
    import_weights.import_weights(str(second), str(tmp_path / "run2"), data=config.data.source)
    assert runs.newest(tmp_path / "run2").meta["leaves"] == ours.meta["leaves"]


def test_the_run_goes_on_as_if_it_had_never_left(torch, trained, tmp_path):
    """Batches, dropout and learning rates follow from the seed and the step."""
    config, run_dir = trained
    path = export(run_dir, tmp_path / "ckpt.pt")
    import_weights.import_weights(str(path), str(tmp_path / "run"), data=config.data.source)
    longer = config.copy_and_resolve_references()
    longer.train.max_iters = 12
    assert runs.start(longer, tmp_path / "run", ["train.max_iters"]) == 0
    assert runs.start(longer, tmp_path / "unbroken") == 0
    tiny.assert_same_bits(
        runs.newest(tmp_path / "run").state, runs.newest(tmp_path / "unbroken").state
    )


def test_what_nanogpt_reads_is_all_there(torch, trained, tmp_path, capsys):
    _, run_dir = trained
    found = torch_file.read(export(run_dir, tmp_path / "ckpt.pt"), flag="--from")
    assert (found["iter_num"], found["config"]["dataset"]) == (6, "letters")
    model, flags = found["model_args"], found["config"]
    assert model["vocab_size"] == len(set(tiny.TEXT)) and model["dropout"] == 0.2
    assert {"n_layer", "n_head", "n_embd", "block_size", "bias"} < model.keys()
    assert (flags["batch_size"], flags["lr_decay_iters"], flags["decay_lr"]) == (6, 12, True)
    # Every name and shape that nanoGPT's load_state_dict asks for.
    width = model["n_embd"]
    wte = found["model"].pop(interop.HEAD)
    assert wte is found["model"][interop.TOKENS] and wte.shape == (model["vocab_size"], width)
    assert found["model"]["transformer.h.0.attn.c_attn.weight"].shape == (3 * width, width)
    assert found["model"]["transformer.h.0.mlp.c_proj.weight"].shape == (width, 4 * width)
    said = capsys.readouterr().out
    assert "--init_from=resume" in said and "--lr_decay_iters=12" in said


def test_another_step_and_another_name(torch, trained, tmp_path, capsys):
    _, run_dir = trained
    export(f"{run_dir}/checkpoints/5", tmp_path / "first.pt")
    assert torch_file.read(tmp_path / "first.pt", flag="--from")["iter_num"] == 5
    assert "nanoGPT looks for it as ckpt.pt" in capsys.readouterr().out


def test_what_another_program_cannot_hold_is_refused(torch, tmp_path):
    config = runs.settings(tmp_path, train__max_iters=0, model__qk_norm=True)
    assert runs.start(config, tmp_path / "run") == 0
    with pytest.raises(UserError, match="model.qk_norm: True; a ckpt.pt of nanoGPT cannot hold it"):
        export(tmp_path / "run", tmp_path / "ckpt.pt")
    with pytest.raises(UserError, match="model.qk_norm: True; no GPT-2 has it, only False"):
        export(tmp_path / "run", f"hf:{tmp_path}/gpt2")
    assert sorted(os.listdir(tmp_path)) == ["run", "text.txt"]


def test_nothing_is_overwritten_or_guessed(torch, trained, tmp_path, monkeypatch):
    _, run_dir = trained
    path = tmp_path / "ckpt.pt"
    with pytest.raises(UserError, match="--dataset: 'text:text.txt'; the run does not tell"):
        export(run_dir, path, dataset="")
    with pytest.raises(UserError, match="--to: .*; its folder does not exist"):
        export(run_dir, tmp_path / "nowhere" / "ckpt.pt")
    with pytest.raises(UserError, match="--step: 4; must be best, latest or one of"):
        export(run_dir, path, step="4")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UserError, match=r"--to: .*; needs torch .*\[torch\]"):
        export(run_dir, path)
    assert not os.listdir(tmp_path)
    path.write_text("mine")
    with pytest.raises(UserError, match="--to: .*; is there already"):
        export(run_dir, path)
    assert path.read_text() == "mine"


def test_nanogpts_lack_of_a_warmup_is_told(torch, tmp_path, capsys):
    config = runs.settings(tmp_path, train__max_iters=1, optim__schedule="constant")
    assert runs.start(config, tmp_path / "run") == 0
    export(tmp_path / "run", tmp_path / "ckpt.pt")
    assert (
        "WARNING: nanoGPT has no warmup at a constant rate; 1 are left" in capsys.readouterr().out
    )


def test_a_folder_for_transformers_is_written_whole_or_not_at_all(trained, tmp_path, capsys):
    _, run_dir = trained
    folder = tmp_path / "new" / "gpt2"
    export(f"{run_dir}/checkpoints/5", f"hf:{folder}", step="best", dataset="")
    assert sorted(os.listdir(folder)) == ["config.json", "model.safetensors"]
    assert f"from_pretrained('{folder}')" in capsys.readouterr().out
    described = json.loads((folder / "config.json").read_text())
    assert (described["n_embd"], described["activation_function"]) == (6, "gelu")
    with pytest.raises(UserError, match="--to: .*; is not empty. Choose another --to."):
        export(run_dir, f"hf:{folder}")
    with pytest.raises(UserError, match="--out_dir: .*; holds no run"):
        export(tmp_path / "none", "hf")
    assert os.listdir(tmp_path) == ["new"]
    export(run_dir, "hf")
    assert sorted(os.listdir(run_dir / "hf")) == ["config.json", "model.safetensors"]


@pytest.mark.slow
def test_nanogpt_itself_samples_and_goes_on(tmp_path, capsys):
    torch = pytest.importorskip("torch")
    pytest.importorskip("tiktoken")  # Which its sample.py imports.
    source = f"text:{nanogpt_files.shakespeare() / 'input.txt'}"
    knobs = dict(model__n_embd=24, model__block_size=16, eval__max_tokens=0, train__max_iters=60)
    config = tiny.config(data__source=source, optim__learning_rate=1e-2, **knobs)
    assert runs.start(config, tmp_path / "run") == 0
    capsys.readouterr()
    export(tmp_path / "run", tmp_path / "ckpt.pt", dataset="")
    (told,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("go on: "))
    printed = nanogpt_files.run("sample.py", out_dir=tmp_path, num_samples=1, max_new_tokens=40)
    text = printed.partition("meta.pkl...\n")[2].partition("\n---------------")[0]
    assert len(text) == 41
    _, script, *flags = shlex.split(told.removeprefix("go on: "))
    printed = nanogpt_files.run(script, *flags, eval_interval=10, eval_iters=500, max_iters=70)
    (loss,) = (line.split()[-1] for line in printed.splitlines() if line.startswith("step 60"))
    # nanoGPT's estimate of the same weights, over 500 random batches of 96 tokens.
    assert float(loss) == pytest.approx(runs.newest(tmp_path / "run").meta["val_nats"], abs=0.03)
    stored = torch.load(tmp_path / "ckpt.pt", map_location="cpu")
    assert stored["iter_num"] == 70 and stored["optimizer"]["state"][0]["step"] == 70
    import_weights.import_weights(str(tmp_path / "ckpt.pt"), str(tmp_path / "back"), data=source)
    assert runs.newest(tmp_path / "back").step == 70
    assert np.isfinite(runs.newest(tmp_path / "back").meta["val_nats"])
