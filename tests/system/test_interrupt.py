"""Ctrl-C ends a command in a second with 130 and no traceback, whenever it comes."""

import collections
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny

SCRIPTS = Path(__file__).parent.parent.parent / "scripts"

# What Python 3.11 takes until it runs a script's first instruction; until then Ctrl-C is its own.
PYTHON_STARTS_SECONDS = 0.1


def interrupted(command, seconds, folder):
    """(exit code, what it said of errors, seconds it took to end) of a process told to end."""
    with open(folder / "errors", "w+") as errors:
        # What these tests run under may have told them, and so their children, to ignore it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors, cwd=folder)
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        start = time.monotonic()
        code = process.wait(60)
        errors.seek(0)
        return code, errors.read(), time.monotonic() - start


def is_pythons(said):
    """Whether the signal found Python itself not started yet, as on a slow machine it may."""
    ours = re.search(r"(scripts|gptjax|gptjax/\w+)/\w+\.py", said)
    return "Traceback" in said and not ours


def swept(command, folder, *, n_signals, seconds):
    """Sends signals to as many processes, spread over their first `seconds`; counts the ends."""
    ends = collections.Counter()
    for number in range(n_signals):
        moment = PYTHON_STARTS_SECONDS + (seconds - PYTHON_STARTS_SECONDS) * number / n_signals
        code, said, took = interrupted(command, moment, folder)
        shutil.rmtree(folder / "another", ignore_errors=True)
        # On two busy cores a process may not be given its turn for a while.
        assert took < 2, f"{took:.1f} s after a signal at {moment:.2f} s"
        if is_pythons(said):
            ends[130] += 1
            continue
        assert "Traceback" not in said and "Exception" not in said, said
        # A run whose three updates were done has said how it ended on stdout.
        assert said.replace("gptjax: interrupted\n", "") == "", said
        # Before a script's first instruction, and after its last, the signal itself ends Python: a
        # shell calls that 130 as well.
        ends[130 if code == -signal.SIGINT else code] += 1
    return ends


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A folder with a text and a run trained on it in a moment."""
    folder = tmp_path_factory.mktemp("interrupt")
    (folder / "text.txt").write_text(tiny.TEXT)
    subprocess.run(training(folder, "run"), check=True, stdout=subprocess.DEVNULL)
    return folder


def training(folder, out_dir):
    knobs = dict(
        out_dir=folder / out_dir, data__source=f"text:{folder / 'text.txt'}", train__max_iters=3
    )
    knobs |= dict(model__n_layer=1, model__n_head=1, model__n_embd=8, model__block_size=5)
    flags = [f"--config.{name.replace('__', '.')}={value}" for name, value in knobs.items()]
    config = SCRIPTS.parent / "configs" / "shakespeare_char.py"
    return [sys.executable, str(SCRIPTS / "train.py"), "--config", str(config), *flags]


@pytest.mark.parametrize("seconds", [0.1, 0.4, 0.8])
def test_p30_ctrl_c_ends_a_command_that_has_just_begun(tmp_path, seconds):
    """While Python, then JAX, is being imported: an exception would be printed or swallowed."""
    command = [sys.executable, str(SCRIPTS / "sample.py"), "--out_dir=nothing"]
    code, said, _ = interrupted(command, seconds, tmp_path)
    assert is_pythons(said) or ("Traceback" not in said and code in (130, 2, -signal.SIGINT)), said


@pytest.mark.slow
@pytest.mark.parametrize("script", ["train", "sample", "evaluate"])
def test_p30_ctrl_c_ends_a_command_at_whatever_moment(run_folder, script):
    """A hundred signals over the start, from the imports to what it prints."""
    if script == "train":
        command = training(run_folder, "another")
    else:
        arguments = ["--num_samples=1", "--max_new_tokens=20"] if script == "sample" else []
        out_dir = f"--out_dir={run_folder / 'run'}"
        command = [sys.executable, str(SCRIPTS / f"{script}.py"), out_dir, *arguments]
    whole = []
    for _ in range(2):  # The first compiles what later ones find compiled.
        start = time.monotonic()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        whole.append(time.monotonic() - start)
        shutil.rmtree(run_folder / "another", ignore_errors=True)
    ends = swept(command, run_folder, n_signals=100, seconds=min(whole))
    # Some are done before their signal comes: no two processes take the same time.
    assert set(ends) <= {130, 0} and ends[130] >= 50, ends


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_tidies_up_before_it_ends_a_command(tmp_path, number):
    """A process that was started, and a temporary folder, do not outlive it."""
    program = tmp_path / "program.py"
    program.write_text(
        "import subprocess, sys, time\n"
        "from gptjax.speed.process import child_process\n"
        "from gptjax.system import command\n"
        "from gptjax.system.files import temporary_folder\n"
        "def main(argv):\n"
        "    sleeping = [sys.executable, '-c', 'import time; time.sleep(600)']\n"
        "    with temporary_folder() as folder, child_process(sleeping, None, {}) as (child, _):\n"
        "        print(child.pid, folder, flush=True)\n"
        "        print('said last')\n"
        "        time.sleep(600)\n"
        "command.run(main)\n"
    )
    process = subprocess.Popen(
        [sys.executable, program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    child, folder = process.stdout.readline().split()
    assert os.path.isdir(folder)
    time.sleep(0.2)
    process.send_signal(number)
    output, errors = process.communicate(timeout=10)
    assert (process.returncode, errors) == (128 + number, "gptjax: interrupted\n")
    assert output == "said last\n" and not os.path.exists(folder)
    with pytest.raises(ProcessLookupError):
        for _ in range(100):
            os.kill(int(child), 0)
            time.sleep(0.05)
