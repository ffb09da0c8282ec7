"""Measurements: what is timed, what is counted, and a peer that stands still when it should."""

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import compiling
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import runs
import tiny

from gptjax import bench
from gptjax.config.config import default_config, set_knob
from gptjax.config.knobs import KNOBS
from gptjax.data import corpus, splits
from gptjax.device import peak
from gptjax.speed import growth, nanogpt, process, profile, scaling, stepper
from gptjax.speed.stepper import Stepper
from gptjax.system.errors import RunError, UserError

SCRIPTS = Path(__file__).parent.parent.parent / "scripts"

# Prints what nanoGPT's train.py prints, one update every 20 ms, and its flags into out_dir.
FAKE_TRAIN = """
import json, os, sys, time
flags = dict(argument[2:].split("=", 1) for argument in sys.argv[1:])
os.makedirs(flags["out_dir"], exist_ok=True)
with open(flags["out_dir"] + "/flags.json", "w") as file:
    json.dump(flags, file)
print("number of parameters: 0.80M")
print("step 0: train loss 4.1676, val loss 4.1649")
for i in range(int(flags["max_iters"])):
    time.sleep(0.02)
    if i % int(flags["log_interval"]) == 0:
        print(f"iter {i}: loss {4 - i / 100:.4f}, time 20.00ms, mfu 0.02%")
print("step 9: train loss 1.7648, val loss 1.8857")
"""
FAKE_SAMPLE = """
import statistics
import sys
flags = dict(argument[2:].split("=", 1) for argument in sys.argv[1:])
open(flags["out_dir"] + "/flags.json").close()
for _ in range(int(flags["num_samples"])):
    print("x" * int(flags["max_new_tokens"]))
"""


@pytest.fixture(autouse=True)
def short_bursts(monkeypatch):
    """No figure here depends on how long a burst is; the profiler's work does."""
    monkeypatch.setattr(stepper, "_TIMED_SECONDS", 0.1)
    monkeypatch.setattr(peak, "matmul_rate", lambda *arguments, **settings: 1e11)


@pytest.fixture
def settings(tmp_path):
    return runs.settings(tmp_path)


@pytest.fixture(scope="module")
def one_stepper(tmp_path_factory):
    """A stepper for the tests that only look at one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stepper, "_TIMED_SECONDS", 0.1)
        patch.setattr(peak, "matmul_rate", lambda *arguments, **settings: 1e11)
        return Stepper(runs.settings(tmp_path_factory.mktemp("stepper")))


@pytest.fixture
def checkout(tmp_path, settings):
    """A folder like nanoGPT's, prepared with the text of `settings`."""
    folder = tmp_path / "nanoGPT"
    data = folder / "data" / "shakespeare_char"
    data.mkdir(parents=True)
    (folder / "train.py").write_text(FAKE_TRAIN)
    (folder / "sample.py").write_text(FAKE_SAMPLE)
    (folder / "model.py").write_text("")
    text = corpus.load(settings.data.source, fallback="")
    ids = splits.split(text, splits.tokenizer(text, settings.data), settings.data).train
    np.asarray(ids, np.uint16).tofile(data / "train.bin")
    return folder


def peer(folder, **changes):
    return nanogpt.NanoGPT(str(folder), sys.executable, **{"is_compiled": False, **changes})


class TestCommands:
    def test_a_command_is_timed_line_by_line(self):
        code = "import time; print('one'); time.sleep(0.3); print('two'); time.sleep(0.2)"
        found = process.run([sys.executable, "-c", code])
        assert 0.25 < found.first("two") - found.first("one") < 2
        assert found.seconds - found.first("two") > 0.15
        assert found.peak_bytes > 2**20
        with pytest.raises(RunError, match="printed no line like 'three'"):
            found.first("three")

    def test_a_failure_is_told_with_its_last_words(self):
        code = "import sys; print('fine'); sys.exit('no such thing')"
        with pytest.raises(RunError, match="ended with 1: no such thing"):
            process.run([sys.executable, "-c", code])
        code = "import sys; print('2 failed'); sys.exit(1)"
        with pytest.raises(RunError, match="ended with 1: 2 failed"):
            process.run([sys.executable, "-c", code])
        with pytest.raises(UserError, match="cannot be run"):
            process.run(["/nowhere/python"])

    def test_a_command_that_takes_too_long_is_stopped(self):
        start = time.perf_counter()
        with pytest.raises(RunError, match="was not done within 0 s"):
            process.run([sys.executable, "-c", "import time; time.sleep(60)"], limit=0.4)
        assert time.perf_counter() - start < 20

    def test_what_a_command_started_ends_with_it(self, checkout, settings, tmp_path):
        """Even a nanoGPT that is held still between its bursts."""
        code = textwrap.dedent(f"""
            import sys, time
            from gptjax.system import command
            from gptjax.config import config_file
            from gptjax.speed import nanogpt
            def main(argv):
                other = nanogpt.NanoGPT({str(checkout)!r}, sys.executable, is_compiled=False)
                config = config_file.load_config("configs/shakespeare_char.py", {{}})
                with other.stepping(config) as stepping:
                    print(stepping._child.pid, flush=True)
                    time.sleep(60)
            command.run(main)
        """)
        started = subprocess.Popen(
            [sys.executable, "-c", code], cwd=SCRIPTS.parent, stdout=subprocess.PIPE, text=True
        )
        pid = int(started.stdout.readline())
        assert Path(f"/proc/{pid}").exists()
        started.terminate()
        assert started.wait(30) == 143
        for _ in range(100):  # What has ended is there until somebody hears of it.
            if not Path(f"/proc/{pid}").exists():
                break
            time.sleep(0.05)
        assert not Path(f"/proc/{pid}").exists()

    def test_both_programs_evaluations_are_read(self):
        lines = [
            (1.0, "step 0: train 4.1744, val 4.1743 ± 0.0000 nats/char (best)"),
            (2.0, "step 5/9 · loss 1.9"),
            (3.0, "step 250: train loss 2.4293, val loss 2.4447"),
        ]
        found = process.Finished(4.0, lines, 0).evaluations()
        assert found == [(1.0, 0, 4.1743), (3.0, 250, 2.4447)]


class TestNanoGPT:
    def test_it_gets_the_same_experiment(self, checkout, settings, tmp_path):
        settings.train.grad_accum_steps = 2
        found = peer(checkout).train(settings, str(tmp_path / "out"))
        assert found.evaluations()[-1][2] == 1.8857
        flags = json.loads((tmp_path / "out" / "flags.json").read_text())
        wanted = {
            "n_layer": "1",
            "n_embd": "6",
            "block_size": "5",
            "dropout": "0.2",
            "batch_size": "3",
            "gradient_accumulation_steps": "2",
            "max_iters": "12",
            "lr_decay_iters": "12",
            "learning_rate": "0.001",
            "decay_lr": "True",
            "compile": "False",
            "device": "cpu",
        }
        assert {name: flags[name] for name in wanted} == wanted

    def test_between_pairs_it_stands_still(self, checkout, settings):
        with peer(checkout).stepping(settings) as stepping:
            assert stepping.time_updates(3) == pytest.approx(0.02)
            pid = stepping._child.pid
            before = Path(f"/proc/{pid}/stat").read_text().split()
            time.sleep(0.3)
            after = Path(f"/proc/{pid}/stat").read_text().split()
            assert before[2] == after[2] == "T" and before[13:15] == after[13:15]
            assert stepping.time_updates(5) == pytest.approx(0.02)
            assert stepping.peak_bytes() > 2**20
        assert not Path(f"/proc/{pid}").exists()

    def test_on_a_gpu_updates_are_timed_by_their_lines(self, checkout, settings, tmp_path):
        """There a line's own figure is of an update that waits for those before it."""
        (checkout / "train.py").write_text(FAKE_TRAIN.replace("20.00ms", "999.00ms"))
        other = peer(checkout, device="cuda")
        with other.stepping(settings) as stepping:
            assert 0.02 < stepping.time_updates(3) < 0.2
        found = other.train(settings, str(tmp_path / "out"))
        assert found.evaluations()
        flags = json.loads((tmp_path / "out" / "flags.json").read_text())
        assert flags["device"] == "cuda" and flags["log_interval"] == "10"

    def test_token_files_are_given_to_it_as_they_are(self, checkout, settings, tmp_path):
        settings.data.source = f"tokens:{tmp_path}"
        other = peer(checkout)
        other.check(settings)
        other.train(settings, str(tmp_path / "out"))
        flags = json.loads((tmp_path / "out" / "flags.json").read_text())
        assert flags["dataset"] == str(tmp_path)

    def test_a_peer_that_dies_is_an_error(self, checkout, settings):
        (checkout / "train.py").write_text("import sys; sys.exit('out of luck')")
        with (
            pytest.raises(RunError, match="train.py ended with 1: out of luck"),
            peer(checkout).stepping(settings),
        ):
            pass

    def test_what_it_cannot_do_is_refused(self, checkout, settings, tmp_path):
        other = peer(checkout)
        other.check(settings)
        with pytest.raises(UserError, match="has no train.py"):
            peer(tmp_path)
        settings.model.token_shift = True
        with pytest.raises(UserError, match="model.token_shift: True; nanoGPT has no such thing"):
            other.check(settings)
        settings.model.token_shift = False
        train_bin = checkout / "data" / "shakespeare_char" / "train.bin"
        train_bin.write_bytes(train_bin.read_bytes()[:-2])
        with pytest.raises(UserError, match="holds another text"):
            other.check(settings)
        train_bin.unlink()
        with pytest.raises(UserError, match="is not prepared.*prepare.py"):
            other.check(settings)


def run_bench(settings, checkout, tmp_path, capsys, **changes):
    arguments = dict(what="step", pairs=2, busy=0, nanogpt=str(checkout) if checkout else None)
    arguments |= dict(nanogpt_python=sys.executable, nanogpt_compile=False, target=0.0)
    arguments |= dict(json=str(tmp_path / "figures.json"), plot=None)
    bench.bench(settings, settings, ["--config", "unused"], **{**arguments, **changes})
    return json.loads((tmp_path / "figures.json").read_text()), capsys.readouterr().out


def test_steps_in_turns_and_beside_other_work(settings, checkout, tmp_path, capsys):
    figures, printed = run_bench(settings, checkout, tmp_path, capsys, busy=1)
    ours, theirs = figures["sides"]
    assert len(ours["values"]) == len(theirs["values"]) == 2
    assert theirs["median"] == pytest.approx(20.0)
    wanted = [b / a for a, b in zip(ours["values"], theirs["values"], strict=True)]
    assert figures["ratios"]["nanoGPT"]["all"] == pytest.approx(wanted)
    assert figures["machine"]["jax"] == jax.__version__
    assert "nanoGPT" in printed and "tokens/s" in printed
    beside = figures["busy"]["sides"]
    assert [len(side["values"]) for side in beside] == [2, 2]
    slower = [b / a for a, b in zip(ours["values"], beside[0]["values"], strict=True)]
    assert figures["slowdown"]["gptjax"] == pytest.approx(statistics.median(slower))
    assert figures["slowdown"]["nanoGPT"] == pytest.approx(1.0)  # It only sleeps.
    assert "beside 1" in printed and "times its quiet time" in printed


def test_steps_alone_show_where_the_time_goes(settings, tmp_path, capsys):
    figures, printed = run_bench(settings, None, tmp_path, capsys)
    assert figures["op_groups"].keys() == set(profile.GROUPS)
    assert "ratios" not in figures and "elementwise" in printed


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pairs": 0}, "--pairs: 0; must be ≥ 1"),
        ({"busy": -1}, "--busy: -1; must be from 0"),
        ({"busy": 1, "what": "run"}, "is for --what step"),
        ({"json": "/nowhere/figures.json"}, "its folder does not exist"),
        ({"plot": "/nowhere/growth.png"}, "its folder does not exist"),
    ],
)
def test_bad_input_is_refused_at_once(settings, tmp_path, capsys, changes, words):
    with pytest.raises(UserError, match=words):
        run_bench(settings, None, tmp_path, capsys, **changes)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["run", "sample", "start"])
def test_whole_processes_in_turns(what, settings, checkout, tmp_path):
    config = tmp_path / "config.py"
    config.write_text(
        textwrap.dedent(f"""
            from gptjax.config.config import default_config
            def get_config():
                config = default_config()
                config.model.update(n_layer=1, n_head=2, n_embd=6, block_size=5, dropout=0.2)
                config.train.update(max_iters=12, batch_size=6)
                config.optim.warmup_iters = 2
                config.data.source = {settings.data.source!r}
                return config
        """)
    )
    command = [sys.executable, SCRIPTS / "bench.py", "--config", config, "--what", what]
    # Only whole runs differ from one pair to the next, by their seed.
    command += ["--nanogpt", checkout, "--pairs", "2" if what == "run" else "1", "--target", "9"]
    command += ["--json", tmp_path / "figures.json"]
    environment = {**os.environ, "XLA_FLAGS": compiling.flags_here()}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "figures.json").read_text())
    if what == "run":
        assert [len(side["values"]) for side in figures["sides"]] == [2, 2]
        assert figures["runs"]["nanoGPT"]["val"] == [1.8857, 1.8857]
        one, other = figures["runs"]["gptjax"]["val"]
        assert one != other, "the second run has another seed"
        assert all(figures["runs"]["gptjax"]["seconds_to_target"])
    elif what == "sample":
        for stride in (1, 2):  # nanoGPT's way, and half a window at once
            for side in figures[f"stride_{stride}"]["whole"]["sides"]:
                assert all(value > 0 for value in side["values"])
    else:
        names = [side["name"] for side in figures["sides"]]
        assert names == ["gptjax, warm", "nanoGPT", "gptjax, cold", "gptjax --help"]


class TestOpGroups:
    HLO = """
HloModule jit_f

%fused_dot (p0: f32[2,3], p1: f32[3,4]) -> f32[2,4] {
  %p0 = f32[2,3]{1,0} parameter(0)
  %p1 = f32[3,4]{1,0} parameter(1)
  ROOT %dot.1 = f32[2,4]{1,0} dot(%p0, %p1), metadata={op_name="jit(f)/dot_general"}
}

ENTRY %main (a: f32[2,3], b: f32[3,4]) -> f32[2,4] {
  %a = f32[2,3]{1,0} parameter(0)
  %b = f32[3,4]{1,0} parameter(1)
  %products = f32[2,4]{1,0} fusion(%a, %b), calls=%fused_dot, metadata={op_name="jit(f)/dot"}
  %dot.2 = f32[2,4]{1,0} dot(%a, %b), metadata={op_name="jit(f)/jvp(attention)/dot_general"}
  %dot.3 = f32[2,4]{1,0} dot(%a, %b), metadata={op_name="jit(f)/optimizer/dot_general"}
  %loop = (s32[], f32[2,4]{1,0}) while(%a), body=%fused_dot
  %call.1 = (bf16[2,4]{1,0}, s8[9]{0}) custom-call(%a, %b), custom_call_target="__cublas$gemm"
  %call.2 = (bf16[2,4]{1,0}, f32[2]{0}, u8[0]{0}) custom-call(%a), \
custom_call_target="__cudnn$fmhaSoftmax", metadata={op_name="jit(f)/jvp(attention)/fwd"}
  %call.3 = bf16[2,4]{1,0} custom-call(%a), custom_call_target="something_else"
  ROOT %sum = f32[2,4]{1,0} add(%products, %dot.2), metadata={op_name="jit(f)/add"}
}
"""

    def test_operations_are_told_apart(self):
        found = profile.groups_of_operations(self.HLO)
        wanted = {"products": "matmul", "dot.2": "attention", "dot.3": "optimizer"}
        wanted |= {"sum": "elementwise", "dot.1": "matmul"}
        wanted |= {"call.1": "matmul", "call.2": "attention", "call.3": "elementwise"}
        assert {name: found[name] for name in wanted} == wanted
        assert "loop" not in found

    def test_overlapping_intervals_count_once(self):
        assert profile.covered([(0, 2), (1, 3), (5, 6), (5.5, 5.7)]) == 4
        assert profile.covered([]) == 0

    def test_the_groups_of_a_real_program_fill_the_time(self, one_stepper):
        names = set(profile.groups_of_operations(one_stepper.program.hlo_text()).values())
        assert names == {"matmul", "attention", "elementwise", "optimizer"}
        groups = profile.profile(one_stepper.program, 3)
        assert groups.keys() == set(profile.GROUPS) and min(groups.values()) >= 0
        assert groups["optimizer"] > 0 and groups["elementwise"] > 0


def test_an_update_and_its_share_of_the_peak(one_stepper):
    program = one_stepper.program
    step = int(program.state.step)
    start = time.perf_counter()
    seconds = one_stepper.time_updates()
    wall = time.perf_counter() - start
    assert int(program.state.step) == step + one_stepper.n_updates
    assert 0.5 * wall < seconds * one_stepper.n_updates <= wall
    share, most = one_stepper.mfu(2.0), program.peak.flops_per_s
    assert share == pytest.approx(program.flops / 2.0 / most, rel=1e-9)
    # Faster than the peak: then it was none.
    assert one_stepper.mfu(0.1 * program.flops / most) == 1
    assert program.peak.flops_per_s == pytest.approx(10 * most)
    assert not Path(default_config().out_dir).exists()


class TestGrowth:
    @pytest.mark.slow
    def test_each_axis_is_scaled_alone(self, settings, monkeypatch):
        made = {}

        def once(config):
            """All axes but one have the same base."""
            key = config.to_json()
            if key not in made:
                made[key] = Stepper(config)
            return made[key]

        monkeypatch.setattr(growth, "_FACTORS", (1, 3))
        monkeypatch.setattr(growth, "Stepper", once)
        monkeypatch.setattr(Stepper, "time_updates", lambda self: self.program.flops / 1e9)
        points = list(growth.measure(settings, n_pairs=2))
        sizes = {(point.axis, point.size) for point in points}
        wanted = {"width": (6, 18), "depth": (1, 3), "context": (5, 15), "batch": (6, 18)}
        wanted |= {"vocabulary": (64, 192)}
        assert sizes == {(axis, size) for axis, pair in wanted.items() for size in pair}
        for point in points:
            assert point.slowdown == pytest.approx(point.flops_growth)
            assert point.memory_bytes > 0
        growths = {point.axis: point.flops_growth for point in points}  # the last: times 3
        assert 2.8 < growths["batch"] < 3.0  # the optimizer's part stays
        assert 3 < growths["width"] < 9
        assert 1 < growths["vocabulary"] < 3

    def test_a_picture_is_drawn(self, tmp_path):
        pytest.importorskip("matplotlib")
        base = growth.Point("width", 6, 0.1, 1.0, 1e9, 1.0, 0.5, 2**20)
        points = [base, dataclasses.replace(base, size=12, slowdown=2.0)]
        growth.plot(points, str(tmp_path / "growth.png"))
        assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")

    def test_without_matplotlib_it_says_what_to_install(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        with pytest.raises(UserError, match=r"needs matplotlib.*\[plot\]"):
            growth.plot([], str(tmp_path / "growth.png"))


class TestScaling:
    @pytest.mark.parametrize(
        ("n_found", "micro_batch", "wanted"),
        [(8, 8, [1, 2, 4, 8]), (8, 12, [1, 2, 4]), (6, 12, [1, 2, 4, 6]), (3, 5, [1]), (1, 4, [1])],
    )
    def test_only_what_splits_evenly_is_measured(self, n_found, micro_batch, wanted):
        assert scaling.fitting_counts(n_found, micro_batch) == wanted

    @pytest.mark.slow
    def test_each_mesh_makes_the_same_update(self, settings, monkeypatch):
        found, made = jax.devices()[:2], []
        monkeypatch.setattr(scaling, "available_devices", lambda *arguments: (found, ""))

        def stepper(config):
            made.append((config.mesh.data, config.mesh.fsdp))
            return Stepper(config)

        monkeypatch.setattr(scaling, "Stepper", stepper)
        monkeypatch.setattr(
            Stepper, "time_updates", lambda self: 1 / len(self.program._layout.devices)
        )
        points = list(scaling.measure(settings, n_pairs=2))
        assert made == [(1, 1), (2, 1), (1, 2)]
        assert [point.name for point in points] == [
            "1 device",
            "2 devices, the state on each",
            "2 devices, the state split",
        ]
        n_tokens = settings.train.batch_size * settings.model.block_size
        for point in points:
            assert point.speedup == point.n_devices
            assert point.tokens_per_s == n_tokens * point.n_devices

    def test_one_device_is_no_scaling(self, settings):
        set_knob(settings, "train.batch_size", 3)
        words = r"--what scaling: 4 devices; .*micro-batch \(3\)"
        with pytest.raises(UserError, match=words):
            list(scaling.measure(settings, n_pairs=1))

    def test_a_picture_is_drawn(self, tmp_path):
        pytest.importorskip("matplotlib")
        one = scaling.Point(1, False, 0.1, 1.0, 1e4, 0.5, 2**20)
        points = [one] + [
            dataclasses.replace(one, n_devices=2, is_split=way, speedup=1.9, tokens_per_s=1.9e4)
            for way in (False, True)
        ]
        scaling.plot(points, str(tmp_path / "scaling.png"))
        assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")


def test_modern_knobs_are_known_to_be_beyond_nanogpt():
    """A new knob of the model must be given to nanoGPT or refused."""
    given = set(nanogpt.nanogpt_flags(default_config()))
    config = default_config()
    refused = {name.partition(".")[2] for name, knob in KNOBS.items() if knob.nanogpt is None}
    # These change no result of theirs; GPT-2's vocabulary nanoGPT pads unasked.
    ours = {
        "vocab_multiple",
        "param_dtype",
        "attention",
        "attention_rows",
        "remat",
        "scan_layers",
        "matmul_precision",
        "dropout_generator",
    }
    known = given | refused | ours
    assert set(config.model) <= known
    assert jnp.dtype(config.model.dtype) == jnp.float32
    assert tiny.MODERN.keys() <= refused
