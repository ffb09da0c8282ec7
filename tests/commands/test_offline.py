"""Training, sampling and evaluating reach for no network: real commands with sockets that refuse.

Only fetching a text may: that is datasets.py's, and tested in test_corpus.py.
"""

import functools
import os
import shutil
import socket

import forked
import pytest
import tiny

from gptjax.data import corpus
from gptjax.run.runlog import read_records

CONFIG = """
from gptjax.config.config import default_config

def get_config():
    config = default_config()
    config.update(
        model=dict(n_layer=1, n_head=2, n_embd=6, block_size=5),
        optim=dict(warmup_iters=1),
        train=dict(max_iters=4, batch_size=4),
        eval=dict(max_tokens=50),
    )
    return config
"""


def refuse_network(marker):
    """Makes every way to another machine raise, and leave a line in the file `marker`."""

    def refusing(name):
        def refuse(*arguments, **settings):
            with open(marker, "a") as file:
                file.write(f"{name} {arguments[-1:]}\n")
            raise OSError(f"{name} is forbidden here")

        return refuse

    for name in ("connect", "connect_ex", "bind", "sendto"):
        setattr(socket.socket, name, refusing(name))
    for name in ("create_connection", "create_server", "getaddrinfo", "gethostbyname"):
        setattr(socket, name, refusing(name))


@pytest.fixture
def offline(tmp_path):
    """Runs a command that must succeed and never ask for the network; its Result."""
    marker = tmp_path / "network"
    environment = {name: value for name, value in os.environ.items() if "PROXY" not in name.upper()}
    environment["GPTJAX_CACHE_DIR"] = str(tmp_path)

    def run(script, *arguments):
        result = forked.run(
            tmp_path,
            script,
            *arguments,
            environment=environment,
            prepare=functools.partial(refuse_network, str(marker)),
        )
        assert not marker.exists(), marker.read_text()
        assert result.code == 0, result.stderr
        return result

    return run


def train_arguments(folder, source):
    (folder / "config.py").write_text(CONFIG)
    return (
        f"--config={folder / 'config.py'}",
        f"--config.out_dir={folder / 'run'}",
        f"--config.data.source={source}",
        "--config.data.fallback=",
    )


def test_p23_the_network_is_really_refused(tmp_path):
    """Otherwise the tests here would prove nothing."""
    arguments = train_arguments(tmp_path, "tiny_shakespeare")
    environment = {name: value for name, value in os.environ.items() if "GPTJAX" not in name}
    environment |= {"TFDS_DATA_DIR": str(tmp_path / "tfds")}
    result = forked.run(
        tmp_path,
        "train",
        *arguments,
        environment=environment,
        prepare=functools.partial(refuse_network, str(tmp_path / "network")),
    )
    assert result.code == 2 and "create_connection is forbidden" in result.stderr
    assert (tmp_path / "network").read_text()


def test_p23_a_run_its_samples_and_its_evaluation_need_no_network(offline, tmp_path):
    """And samples need nothing but the run: its config and its text are gone by then."""
    (tmp_path / "text.txt").write_text(tiny.TEXT)
    offline("train", *train_arguments(tmp_path, f"text:{tmp_path / 'text.txt'}"))
    (tmp_path / "moved").mkdir()
    shutil.move(tmp_path / "run", tmp_path / "moved" / "run")
    (tmp_path / "text.txt").unlink()
    (tmp_path / "config.py").unlink()
    out_dir = f"--out_dir={tmp_path / 'moved' / 'run'}"
    sampled = offline("sample", out_dir, "--prompt=cats", "--num_samples=1", "--max_new_tokens=3")
    assert sampled.stdout.startswith("cats") and sampled.stderr == ""
    assert "nats/char" in offline("evaluate", out_dir).stdout


@pytest.mark.slow
def test_p23_tiny_shakespeare_at_hand_is_read_without_a_network(offline, tmp_path):
    if not os.environ.get("GPTJAX_DATA_DIR"):
        pytest.skip("GPTJAX_DATA_DIR names no folder with tiny_shakespeare")
    offline("train", *train_arguments(tmp_path, "tiny_shakespeare"))
    first = read_records(tmp_path / "run" / "metrics.jsonl")[0]
    assert first["corpus_name"] == "tiny_shakespeare"
    assert first["corpus_sha256"] == corpus.SHAKESPEARE_SHA256
