"""What every script shares: exit codes, the form of errors, and terminals of all kinds."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import compiling
import pytest

from gptjax.config.knobs import KNOBS
from gptjax.system import command
from gptjax.system.errors import RunError, UserError

SCRIPTS = Path(__file__).parent.parent.parent / "scripts"

# PYTHONUNBUFFERED would hide what goes wrong when output is flushed at the end.
ENVIRONMENT = {
    name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "GPTJAX_"))
}

# A command of our own, in a process of its own.
PROGRAM = """\
from gptjax.system import command
from gptjax.system.errors import RunError, UserError

def main(argv):
{body}

command.run(main)
"""


def run_program(body, *, arguments=(), environment=None, **settings):
    """Runs `body` as the main function of a command."""
    lines = "\n".join("    " + line for line in body.splitlines())
    return subprocess.run(
        [sys.executable, "-c", PROGRAM.format(body=lines), *arguments],
        env={**ENVIRONMENT, **(environment or {})},
        stderr=subprocess.PIPE,
        **{"stdout": subprocess.PIPE, "encoding": "utf-8", "timeout": 60, **settings},
    )


def run_script(name, *arguments, environment=None, **settings):
    settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **settings}
    return subprocess.run(
        [sys.executable, str(SCRIPTS / f"{name}.py"), *arguments],
        env=environment or ENVIRONMENT,
        encoding="utf-8",
        timeout=60,
        **settings,
    )


@pytest.fixture
def exit_of(monkeypatch, capsys):
    """A function that runs a main function as a command; returns (exit code, stdout, stderr)."""
    monkeypatch.delenv("GPTJAX_TRACEBACK", raising=False)
    monkeypatch.setattr(sys, "argv", ["script.py", "--one", "two"])

    def run(main):
        with pytest.raises(SystemExit) as leaving:
            command.run(main)
        return leaving.value.code, *capsys.readouterr()

    return run


def raising(error):
    def main(argv):
        print("begun")
        raise error

    return main


class TestExitCodes:
    def test_0_when_done(self, exit_of):
        assert exit_of(lambda argv: None) == (0, "", "")

    @pytest.mark.parametrize("code", [0, 1, 143])
    def test_what_main_returned(self, exit_of, code):
        assert exit_of(lambda argv: code) == (code, "", "")

    def test_main_gets_the_arguments_without_the_script_s_name(self, exit_of):
        seen = []
        exit_of(seen.extend)
        assert seen == ["--one", "two"]

    def test_2_for_bad_input(self, exit_of):
        error = UserError("what", "value", "the rule", "The fix.")
        line = "gptjax: error: what: value; the rule. The fix.\n"
        assert exit_of(raising(error)) == (2, "begun\n", line)

    def test_1_for_a_run_that_cannot_go_on(self, exit_of):
        assert exit_of(raising(RunError("loss nan"))) == (
            1,
            "begun\n",
            "gptjax: error: loss nan\n",
        )

    def test_130_for_ctrl_c(self, exit_of):
        assert exit_of(raising(KeyboardInterrupt())) == (
            130,
            "begun\n",
            "gptjax: interrupted\n",
        )

    def test_any_other_error_is_our_own_and_shown_whole(self, exit_of):
        with pytest.raises(ZeroDivisionError):
            command.run(raising(ZeroDivisionError()))

    def test_an_error_of_many_lines_becomes_one(self, exit_of):
        error = UserError("what", "a\nb", "rule")
        assert exit_of(raising(error))[2] == "gptjax: error: what: a b; rule.\n"

    def test_an_error_s_control_characters_are_escaped(self, exit_of):
        error = UserError("what", "a\x1b[2J", "rule")
        assert exit_of(raising(error))[2] == "gptjax: error: what: a\\x1b[2J; rule.\n"

    def test_a_process_ends_with_them(self):
        for body, code in [
            ("return 0", 0),
            ("return 143", 143),
            ("raise UserError('a', 'b', 'c')", 2),
            ("raise RunError('a')", 1),
            ("raise KeyboardInterrupt", 130),
            ("raise SystemExit", 0),
            ("raise SystemExit(3)", 3),
            ("raise SystemExit('words')", 1),
        ]:
            process = run_program(body)
            assert process.returncode == code, body
            assert "Traceback" not in process.stderr

    def test_a_signal_from_the_keyboard_ends_without_a_traceback(self):
        body = "import time\nprint('ready', flush=True)\ntime.sleep(60)"
        lines = "\n".join("    " + line for line in body.splitlines())
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM.format(body=lines)],
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (130, "gptjax: interrupted\n")


class TestTraceback:
    @pytest.mark.parametrize(("kind", "code"), [("UserError", 2), ("RunError", 1)])
    def test_is_shown_when_asked_for_above_the_same_line_and_code(self, kind, code):
        arguments = "'a', 'b', 'c'" if kind == "UserError" else "'a'"
        body = f"raise {kind}({arguments})"
        plain = run_program(body)
        whole = run_program(body, environment={"GPTJAX_TRACEBACK": "1"})
        assert plain.stderr.count("\n") == 1
        assert whole.stderr.startswith("Traceback (most recent call last):\n")
        assert whole.stderr.endswith(plain.stderr)
        assert whole.returncode == plain.returncode == code

    def test_has_the_cause_as_well(self):
        body = "try:\n    1 // 0\nexcept ZeroDivisionError as error:\n"
        body += "    raise UserError('a', 'b', 'c') from error"
        process = run_program(body, environment={"GPTJAX_TRACEBACK": "1"})
        assert "ZeroDivisionError" in process.stderr


class TestLastResort:
    @pytest.mark.parametrize(
        ("error", "said"),
        [
            (MemoryError(), "gptjax: error: out of memory: "),
            (
                type("JaxRuntimeError", (RuntimeError,), {})("RESOURCE_EXHAUSTED: 1 GiB"),
                "gptjax: error: out of memory: RESOURCE_EXHAUSTED: 1 GiB",
            ),
        ],
    )
    def test_an_allocation_that_fails_is_one_line(self, capsys, error, said):
        def main(argv):
            raise error

        with pytest.raises(SystemExit) as left:
            command.run(main)
        assert left.value.code == 1 and capsys.readouterr().err.startswith(said)

    @pytest.mark.parametrize(
        ("error", "said", "code"),
        [
            (PermissionError(13, "Permission denied", "a/b"), "a/b: Permission denied", 1),
            (RuntimeError("can't start new thread"), "out of threads, or of memory for one: ", 1),
            (
                ValueError('Invalid value "x" for JAX flag jax_num_cpu_devices'),
                "JAX_NUM_CPU_DEVICES: x; JAX takes no such value. Unset it.",
                2,
            ),
            (
                ValueError("invalid truth value 'x' for environment 'JAX_NUM_CPU_DEVICES'"),
                "JAX_NUM_CPU_DEVICES: x; JAX takes no such value. Unset it.",
                2,
            ),
        ],
    )
    def test_what_the_machine_refuses_is_one_line(self, exit_of, monkeypatch, error, said, code):
        monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "x")
        left, _, errors = exit_of(raising(error))
        assert left == code and errors.count("\n") == 1
        assert errors.startswith(f"gptjax: error: {said}")

    def test_a_bug_keeps_its_traceback(self):
        def main(argv):
            raise type("JaxRuntimeError", (RuntimeError,), {})("INTERNAL: a bug")

        with pytest.raises(RuntimeError, match="a bug"):
            command.run(main)

    def test_a_module_run_by_its_name_is_its_script(self, tmp_path):
        ended = subprocess.run(
            [sys.executable, "-m", "gptjax.plot", "--help"],
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
        assert (ended.returncode, ended.stderr) == (0, "")
        assert ended.stdout == run_script("plot", "--help").stdout

    @pytest.mark.parametrize("script", sorted(path.name for path in SCRIPTS.glob("*.py")))
    def test_every_command_can_be_run_by_its_name(self, script):
        path = SCRIPTS.parent / "gptjax" / script
        assert path.read_text().endswith('if __name__ == "__main__":\n    run_script(__file__)\n')


class TestPaths:
    def test_a_home_is_expanded_in_every_flag_that_takes_a_path(self, monkeypatch):
        monkeypatch.setenv("HOME", "/home/me")
        flags = command.Flags(description="")
        for name in ("out_dir", "json", "png", "prompt_file", "nanogpt", "prompt"):
            flags.add_argument(f"--{name}")
        given = [f"--{name}=~/x" for name in ("out_dir", "json", "png", "prompt_file", "nanogpt")]
        found = vars(flags.parse_all([*given, "--prompt=~/x"]))
        assert found.pop("prompt") == "~/x" and set(found.values()) == {"/home/me/x"}

    def test_a_home_is_expanded_each_time_a_flag_is_given(self, monkeypatch):
        monkeypatch.setenv("HOME", "/home/me")
        flags = command.Flags(description="")
        flags.add_argument("--out_dir", action="append")
        found = flags.parse_all(["--out_dir=~/x", "--out_dir", "y", "--out_dir", "~"])
        assert found.out_dir == ["/home/me/x", "y", "/home/me"]

    def test_every_flag_that_takes_a_path_is_known_as_one(self):
        named = re.findall(
            r'add_argument\(\s*"--(\w+)"[^)]*metavar="(?:FILE|DIR|PATH)"',
            "".join(path.read_text() for path in SCRIPTS.glob("*.py")),
        )
        assert named and set(named) <= command._PATHS


class TestFlags:
    def test_a_value_may_begin_with_a_dash(self):
        flags = command.Flags(description="")
        flags.add_argument("--prompt")
        flags.add_argument("--seed", type=int)
        found = flags.parse_all(["--prompt", "-hello", "--seed", "-3"])
        assert (found.prompt, found.seed) == ("-hello", -3)
        with pytest.raises(UserError, match="expected one argument"):
            flags.parse_all(["--prompt", "--seed=3"])
        with pytest.raises(UserError, match="expected one argument"):
            flags.parse_all(["--prompt", "--help"])

    def test_what_may_have_been_meant_is_said(self):
        flags = command.Flags(description="", hint=lambda argument: f"Not {argument}.")
        with pytest.raises(UserError, match=r"unexpected argument\. Not --x=1\."):
            flags.parse_all(["--x=1"])

    def test_errors_have_the_common_form(self):
        flags = command.Flags(description="")
        flags.add_argument("--steps", type=int, required=True)
        for argv, found in [
            ([], "the following arguments are required: --steps"),
            (["--steps"], "argument --steps: expected one argument"),
            (["--steps", "x"], "argument --steps: invalid int value: 'x'"),
        ]:
            with pytest.raises(UserError) as caught:
                flags.parse_all(argv)
            assert str(caught.value) == f"command line: {found}; see --help."

    def test_are_not_abbreviated(self):
        flags = command.Flags(description="")
        flags.add_argument("--steps", type=int)
        with pytest.raises(UserError, match="'--step'; unexpected argument"):
            flags.parse_all(["--step", "5"])

    def test_what_is_understood_is_no_error(self):
        flags = command.Flags(description="")
        flags.add_argument("--steps", type=int)
        assert flags.parse_all(["--steps", "5"]).steps == 5


class TestHelp:
    @pytest.mark.parametrize(
        ("script", "words"),
        [
            ("train", ["--config FILE", *(f"--config.{name}=" for name in KNOBS)]),
            (
                "sample",
                ["--out_dir", "--step", "--prompt", "--prompt_file", "--num_samples"]
                + ["--max_new_tokens", "--temperature", "--top_k", "--seed"],
            ),
            ("evaluate", ["--out_dir", "--step", "--context"]),
        ],
    )
    def test_lists_every_flag(self, script, words):
        process = run_script(script, "--help")
        assert (process.returncode, process.stderr) == (0, "")
        for word in words:
            assert word in process.stdout
        assert max(map(len, process.stdout.splitlines())) <= 100

    def test_every_script_has_it(self):
        for path in SCRIPTS.glob("*.py"):
            process = run_script(path.stem, "--help")
            assert process.stdout.startswith(f"usage: {path.name}"), process.stderr


@pytest.fixture
def closed_pipe():
    """A pipe whose reader has gone, as `| head` leaves it."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


class TestClosedOutput:
    @pytest.mark.parametrize(
        "body",
        [
            "print('a line')",
            "print('a line', flush=True)\nprint('another')",
            "for number in range(100_000): print(number)",
            "print('a line')\nreturn 0",
        ],
    )
    def test_ends_without_a_traceback(self, closed_pipe, body):
        process = run_program(body, stdout=closed_pipe)
        assert (process.returncode, process.stderr) == (0, "")

    @pytest.mark.parametrize("script", ["train", "sample", "evaluate"])
    def test_help_ends_without_a_traceback(self, closed_pipe, script):
        process = run_script(script, "--help", stdout=closed_pipe)
        assert (process.returncode, process.stderr) == (0, "")

    def test_a_real_pipe_to_head(self):
        commands = f"'{sys.executable}' '{SCRIPTS / 'train.py'}' --help | head -n 1"
        process = subprocess.run(
            ["bash", "-o", "pipefail", "-c", commands],
            env=ENVIRONMENT,
            capture_output=True,
            encoding="utf-8",
        )
        assert process.returncode == 0
        assert process.stdout.startswith("usage: train.py")
        assert process.stdout.count("\n") == 1
        assert process.stderr == ""


class TestTerminals:
    """`≥` is in many error messages."""

    @pytest.mark.parametrize(
        ("encoding", "shown"),
        [
            ("ascii", "must be \\u2265 1"),
            ("latin-1", "must be \\u2265 1"),
            ("utf-8", "must be ≥ 1"),
        ],
    )
    def test_show_an_error_with_characters_they_lack(self, encoding, shown):
        process = run_program(
            "raise UserError('n_layer', 0, 'must be ≥ 1')",
            environment={"PYTHONIOENCODING": encoding},
        )
        assert process.returncode == 2
        assert process.stderr == f"gptjax: error: n_layer: 0; {shown}.\n"

    def test_show_output_with_characters_they_lack(self):
        process = run_program("print('1.88 ± 0.01')", environment={"PYTHONIOENCODING": "ascii"})
        assert (process.returncode, process.stdout) == (0, "1.88 \\xb1 0.01\n")

    @pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
    def test_show_the_help(self, encoding):
        environment = {**ENVIRONMENT, "PYTHONIOENCODING": encoding}
        process = run_script("train", "--help", environment=environment)
        assert (process.returncode, process.stderr) == (0, "")
        assert "must be \\u2265 1" in process.stdout


class TestWithoutHome:
    def test_a_run_trains_and_is_written_where_it_was_asked_for(self, tmp_path):
        environment = {
            name: value
            for name, value in ENVIRONMENT.items()
            if name not in ("HOME", "XDG_CACHE_HOME")
        } | compiling.environment()
        (tmp_path / "text.txt").write_text("abc def\nghi" * 20)
        (tmp_path / "tiny.py").write_text(
            "from gptjax.config import default_config\n"
            "def get_config():\n"
            "    config = default_config()\n"
            "    config.model.update(n_layer=1, n_head=1, n_embd=8, block_size=8)\n"
            "    config.update(out_dir='run', data=dict(source='text:text.txt'))\n"
            "    config.update(train=dict(max_iters=1, batch_size=2), optim=dict(warmup_iters=0))\n"
            "    return config\n"
        )
        process = run_script("train", "--config", "tiny.py", environment=environment, cwd=tmp_path)
        assert process.returncode == 0, process.stderr
        assert {path.name for path in tmp_path.iterdir()} == {"text.txt", "tiny.py", "run"}
