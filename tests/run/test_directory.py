"""A run directory that is made whole or not at all."""

import os
import signal
import subprocess
import sys

import pytest

from gptjax.run import directory
from gptjax.system.errors import UserError


@pytest.mark.parametrize("is_there", [False, True])
def test_what_is_written_is_there_at_the_end_and_not_before(tmp_path, is_there):
    run_dir = tmp_path / "out" / "run"
    if is_there:
        run_dir.mkdir(parents=True)
    with directory.made_whole(run_dir) as folder:
        (folder / "config.json").write_text("{}")
        assert not (run_dir / "config.json").exists()
    assert os.listdir(run_dir) == ["config.json"]
    assert os.listdir(run_dir.parent) == ["run"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_nothing_is_left_when_it_fails(tmp_path, error):
    with pytest.raises(error), directory.made_whole(tmp_path / "a" / "b" / "run") as folder:
        (folder / "config.json").write_text("{}")
        raise error
    assert not os.listdir(tmp_path)


def test_what_is_in_the_directory_stays(tmp_path):
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    (run_dir / "mine").write_text("")
    with pytest.raises(UserError, match="is not empty"), directory.made_whole(run_dir):
        pass
    (run_dir / "mine").unlink()
    with (
        pytest.raises(UserError, match="--out_dir: .* cannot be made: Directory not empty"),
        directory.made_whole(run_dir),
    ):
        (run_dir / "theirs").write_text("")  # Another process was quicker.
    assert os.listdir(tmp_path) == ["run"] and os.listdir(run_dir) == ["theirs"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_ends_the_command_leaves_nothing(tmp_path, number):
    program = tmp_path / "program.py"
    program.write_text(
        "import pathlib, sys, time\n"
        "from gptjax.run import directory\n"
        "from gptjax.system import command\n"
        "def main(argv):\n"
        "    with directory.made_whole(pathlib.Path('out', 'run')) as folder:\n"
        "        (folder / 'config.json').write_text('{}')\n"
        "        print('written', flush=True)\n"
        "        time.sleep(600)\n"
        "command.run(main)\n"
    )
    command = [sys.executable, program]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "written\n"
    process.send_signal(number)
    assert process.wait(60) == 128 + number
    assert os.listdir(tmp_path) == ["program.py"]
