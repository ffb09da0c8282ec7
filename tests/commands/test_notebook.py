"""gptjax.open_run: what a notebook gets of a run is what the commands print and the files hold."""

import ast
import inspect
import json
import re
import sys
from pathlib import Path

import forked
import jax.numpy as jnp
import numpy as np
import pytest
import runs
import tiny

import gptjax
from gptjax.config.config import flat
from gptjax.notebook import Run
from gptjax.run.runlog import read_records
from gptjax.system.errors import UserError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def out_dir(tmp_path_factory):
    """A finished run: evaluated at 0, 5, 10, 12, logged at 2, 4, … 12."""
    folder = tmp_path_factory.mktemp("notebook")
    assert runs.start(runs.settings(folder), folder / "run") == 0
    return folder / "run"


def test_the_config_is_the_one_that_was_run(out_dir):
    run = gptjax.open_run(out_dir)
    assert flat(run.config) == json.loads((out_dir / "config.json").read_text())
    assert run.config.model.n_embd == 6 and run.config.out_dir == str(out_dir)


def test_metrics_are_the_log_as_arrays(out_dir):
    metrics = gptjax.open_run(str(out_dir)).metrics
    records = read_records(out_dir / "metrics.jsonl")
    assert list(metrics) == ["run", "eval", "train", "ledger", "end"]
    for kind, columns in metrics.items():
        of_kind = [record for record in records if record["kind"] == kind]
        for name, values in columns.items():
            assert isinstance(values, np.ndarray)
            expected = [record[name] for record in of_kind]
            if expected == [None]:
                assert np.isnan(values).tolist() == [True]
            else:
                assert values.tolist() == expected
    assert metrics["train"]["step"].tolist() == [2, 4, 6, 8, 10, 12]
    assert metrics["train"]["loss"].dtype == np.float64
    assert metrics["end"]["reason"].tolist() == ["finished"]


def test_what_a_record_lacks_is_nan(tmp_path):
    lines = [
        {"kind": "eval", "step": 0, "val_loss": 2.0, "val_sem": None, "train_loss": 2.5},
        {"kind": "eval", "step": 5, "val_loss": 1, "val_sem": 0.25, "new": True},
        {"kind": "note", "step": 5, "text": "a", "numbers": [1, 2]},
        {"kind": "note", "step": 6, "numbers": [3, 4]},
    ]
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    run = gptjax.open_run(tmp_path)
    losses, notes = run.losses, run.metrics["note"]
    np.testing.assert_array_equal(losses.steps, [0, 5])
    np.testing.assert_array_equal(losses.val, [2.0, 1.0])
    np.testing.assert_array_equal(losses.val_sem, [np.nan, 0.25])
    np.testing.assert_array_equal(losses.train, [2.5, np.nan])
    np.testing.assert_array_equal(losses.train_sem, [np.nan, np.nan])
    assert run.metrics["eval"]["new"].tolist() == [None, True]
    assert notes["text"].tolist() == ["a", None] and notes["numbers"].tolist() == [[1, 2], [3, 4]]
    assert repr(losses).startswith("Losses(2 evaluations")


def test_a_log_is_followed_while_it_grows(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    run = gptjax.open_run(tmp_path)
    assert run.metrics == {} and len(run.losses.steps) == len(run.losses.val) == 0
    (tmp_path / "metrics.jsonl").write_text('{"kind": "eval", "step": 0, "val_loss": 3}\n')
    assert run.losses.val.tolist() == [3.0]


def test_a_frame_is_the_same_as_a_table(out_dir):
    pytest.importorskip("pandas")
    run = gptjax.open_run(out_dir)
    frame = run.frame("train")
    assert frame["loss"].tolist() == run.metrics["train"]["loss"].tolist()
    with pytest.raises(UserError, match="frame: loss; the log has run, eval, train, ledger, end"):
        run.frame("loss")


def test_without_pandas_a_frame_is_one_clear_line(out_dir, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UserError) as caught:
        gptjax.open_run(out_dir).frame()
    assert str(caught.value) == "frame: pandas; is not installed. pip install pandas"


def test_generated_texts_are_those_of_the_command(out_dir, tmp_path):
    flags = ("--prompt=the cats", "--num_samples=3", "--max_new_tokens=40", "--seed=5")
    flags += ("--step=latest", "--stride=2", "--top_k=9", "--temperature=0.7")
    printed = forked.run(tmp_path, "sample", f"--out_dir={out_dir}", *flags).stdout
    texts = gptjax.open_run(out_dir, step="latest").generate(
        "the cats",
        num_samples=3,
        max_new_tokens=40,
        seed=5,
        stride=2,
        top_k=9,
        temperature=0.7,
    )
    assert "".join(f"{text}\n---------------\n" for text in texts) == printed
    assert len(set(texts)) == 3


def test_generate_has_the_flags_of_the_command_with_their_defaults():
    tree = ast.parse((ROOT / "scripts" / "sample.py").read_text())
    flags = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument":
            given = {keyword.arg: keyword.value for keyword in node.keywords}
            default = ast.literal_eval(given["default"]) if "default" in given else None
            flags[ast.literal_eval(node.args[0]).removeprefix("--")] = default
    del flags["out_dir"]
    arguments = {
        name: parameter.default
        for name, parameter in inspect.signature(Run.generate).parameters.items()
        if name != "self"
    }
    assert arguments | {"step": "best"} == flags
    assert inspect.signature(gptjax.open_run).parameters["step"].default == flags["step"]


def test_the_model_gives_the_checkpoints_logits(out_dir):
    """Against the state's own weights, at more than one length."""
    run = gptjax.open_run(out_dir, step=10)
    ids_T = run.tokenizer.encode("the c").astype(np.int32)
    assert run.checkpoint.step == 10 and len(ids_T) == run.config.model.block_size
    model, params = run.model(), run.checkpoint.state.params
    for n_tokens in (2, len(ids_T)):
        logits_BTV = model(jnp.asarray(ids_T[None, :n_tokens]))
        assert logits_BTV.shape == (1, n_tokens, run.tokenizer.vocab_size)
    # One matrix of the model is enough to tell that no other weights are in it.
    np.testing.assert_array_equal(model.wte.embedding[...], params["wte"]["embedding"][...])
    greedy = run.generate("the c", num_samples=1, max_new_tokens=1, temperature=0.0)
    assert run.tokenizer.decode(logits_BTV[0, -1:].argmax(axis=-1)) == greedy[0][-1]


def test_evaluating_repeats_what_the_command_prints(out_dir, tmp_path):
    printed = forked.run(tmp_path, "evaluate", f"--out_dir={out_dir}", "--context=3").stdout
    found = gptjax.open_run(out_dir).evaluate(context=3)
    assert f"val {found.loss} nats/{found.unit} at context 3" in printed
    assert f"{found.bits_per_byte:.4f} bits/byte" in printed


def test_a_checkpoints_folder_names_its_step(out_dir):
    run = gptjax.open_run(out_dir / "checkpoints" / "10")
    assert (run.path, run.checkpoint.step) == (out_dir, 10)
    assert repr(run) == f"open_run({str(out_dir)!r}, step='10')"


def test_what_is_no_run_is_told_in_one_line(out_dir, tmp_path):
    with pytest.raises(UserError, match=f"open_run: {tmp_path}; holds no run. Train one"):
        gptjax.open_run(tmp_path)
    with pytest.raises(UserError, match="open_run: 7; must be best, latest or one of"):
        gptjax.open_run(out_dir, step=7).generate()
    with pytest.raises(UserError, match="--num_samples: 0; must be ≥ 1"):
        gptjax.open_run(out_dir).generate(num_samples=0)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="config.json: .*; cannot be read: "):
        _ = gptjax.open_run(tmp_path).config


def test_nothing_is_written(out_dir):
    def files():
        return {path: path.stat().st_mtime_ns for path in out_dir.rglob("*")}

    before = files()
    run = gptjax.open_run(out_dir)
    run.generate("the", num_samples=1, max_new_tokens=2)
    assert run.evaluate().n_tokens and run.metrics and run.config and run.model()
    assert files() == before


def test_the_page_on_python_runs_on_a_tiny_run(tmp_path, monkeypatch):
    """Its blocks in order, in one program, as in a notebook; but for the text, a tiny one."""
    page = (ROOT / "docs" / "python.md").read_text()
    pattern = r"(<!-- not run[^\n]*\n)?```python\n(.*?)\n```\n"
    found = re.findall(pattern, page, re.DOTALL)
    blocks = [code for not_run, code in found if not not_run]
    assert len(blocks) == 6 and "gptjax.open_run" in blocks[1] and ".generate(" in blocks[3]
    (tmp_path / "text.txt").write_text(tiny.TEXT + "ROMEO:" * 9)
    first, call, rest = blocks[0].partition("exit_code = ")
    assert call
    first += 'config.data.source = "text:text.txt"\nconfig.mesh.data = 1\n' + call + rest
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    with runs.unmeasured():
        for code in [first, *blocks[1:]]:
            exec(compile(code, "docs/python.md", "exec"), names)
    assert names["exit_code"] == 0 and names["run"].checkpoint.step in (30, 60)
    assert len(names["texts"]) == 2 and all(text.startswith("ROMEO:") for text in names["texts"])
    assert names["logits"].shape == (1, 6, names["run"].tokenizer.vocab_size)
    assert len(names["loss"]) == len(names["step_ms"]) == 6
