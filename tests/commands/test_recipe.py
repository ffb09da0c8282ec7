"""The laptop recipe from start to end, through the real command line; minutes, so marked slow."""

import os
from pathlib import Path

import numpy as np
import pytest

from gptjax.run.runlog import read_records
from gptjax.speed.process import run, script

ROOT = Path(__file__).parent.parent.parent

pytestmark = pytest.mark.slow

# The laptop recipe looks at a part of it while it trains.
WHOLE_SPLIT = ("--config.eval.max_tokens=0", "--config.eval.interval=1000")


def train(out_dir, *flags, config="shakespeare_char", **environment):
    path = ROOT / "configs" / f"{config}.py"
    command = script("train", f"--config={path}", f"--config.out_dir={out_dir}", *flags)
    finished = run(command, environment=environment)
    return finished, read_records(out_dir / "metrics.jsonl")


def best_val(records):
    return min(record["val_loss"] for record in records if record["kind"] == "eval")


@pytest.fixture(scope="module")
def shakespeare():
    """The folder with the real corpus."""
    folder = os.environ.get("GPTJAX_DATA_DIR", "")
    if not (Path(folder) / "tiny_shakespeare" / "input.txt").is_file() or not folder:
        pytest.skip("wants GPTJAX_DATA_DIR with tiny_shakespeare/input.txt")
    return folder


def test_three_seeds_reach_nanogpts_loss(shakespeare, tmp_path):
    """nanoGPT's own estimate is 1.8857 with an error of 0.01; a second implementation had 1.897."""
    vals = []
    for seed in (1, 2, 3):
        finished, records = train(tmp_path / str(seed), f"--config.seed={seed}", *WHOLE_SPLIT)
        vals.append(best_val(records))
        said = " ".join(line for _, line in finished.lines)
        assert "tiny_shakespeare" in said and "synthetic" not in said
        assert finished.peak_bytes < 1_000_000 * 1024
        rates = [record["mfu"] for record in records if record["kind"] == "train"]
        assert 0 < np.median(rates) < 1  # how busy, only a benchmark on a quiet machine can tell
    assert all(1.86 < val < 1.91 for val in vals), vals
    assert 1.875 < np.mean(vals) < 1.905, vals


def test_bfloat16_parameters_with_masters_lose_little(shakespeare, tmp_path):
    """float32 parameters end at 1.9118 with the same seed (README, Quick start)."""
    _, records = train(tmp_path / "run", "--config.model.param_dtype=bfloat16", *WHOLE_SPLIT)
    assert abs(best_val(records) - 1.9118) < 0.03


def test_the_fast_recipe_needs_a_tenth_of_the_updates(shakespeare, tmp_path):
    """nanoGPT has 1.8857 after 2,000; three seeds of this have 1.849 to 1.871 after 200."""
    given = ("--config.train.max_iters=200", "--config.seed=1")
    _, records = train(tmp_path / "run", *given, config="shakespeare_char_fast")
    assert best_val(records) < 1.8857


def test_offline_run_on_the_synthetic_corpus(tmp_path):
    """No folder, no prepared dataset, no network: a labelled run that ends above the floor.

    300 updates of the fast recipe end 0.31 above it.
    """
    finished, records = train(
        tmp_path / "run",
        "--config.train.max_iters=300",
        config="shakespeare_char_fast",
        GPTJAX_DATA_DIR="",
        TFDS_DATA_DIR=str(tmp_path / "tfds"),
        # Nothing listens on port 9 of this machine: whatever the network, the probe fails.
        https_proxy="http://127.0.0.1:9",
    )
    assert sum("SYNTHETIC" in line for _, line in finished.lines) == 1
    (run,) = [record for record in records if record["kind"] == "run"]
    assert run["corpus_name"] == "synthetic" and run["corpus_requested"] == "tiny_shakespeare"
    evaluations = [record for record in records if record["kind"] == "eval"]
    assert all(record["val_above_floor"] > 0 for record in evaluations)
    assert evaluations[-1]["val_above_floor"] < 0.5 < evaluations[0]["val_above_floor"]
    floor = evaluations[-1]["val_loss"] - evaluations[-1]["val_above_floor"]
    assert floor == pytest.approx(run["corpus_floor_nats"])
