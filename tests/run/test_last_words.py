"""What a run says at its end; what is due when, tests of whole runs show."""

import pytest

from gptjax.device.peak import Peak
from gptjax.run import last_words
from gptjax.run.evaluator import Loss
from gptjax.run.ledger import Ledger

MEASURED = "measured float32 matmul rate of this cpu"


def test_mfu_is_over_the_peak_that_is_known_now():
    first = Peak(90e9, MEASURED)
    assert last_words.mfu_words(60e9, first, first=first) == (
        f"MFU 67% on average, of 90 GFLOP/s, {MEASURED}"
    )
    assert last_words.mfu_words(60e9, Peak(1.5e12, MEASURED), first=first) == (
        f"MFU 4% on average, of 1,500 GFLOP/s, {MEASURED}; at the start it was taken for 90 GFLOP/s"
    )


def test_times_are_the_ledgers():
    ledger = Ledger()
    ledger.count_steps(3, 0.3)  # 100 ms each, kept to 2 %: e**(230 / 50) is 99.5.
    wall, update = last_words.time_words(ledger.to_json())
    assert wall.startswith("wall ") and " step 0.0 s, " in wall
    assert update.startswith("an update took 99.5 ms (median; p95 99.5), without")


@pytest.mark.parametrize(("last", "is_worse"), [(1.53, True), (1.51, False)])
def test_a_val_that_rose_by_more_than_chance(last, is_worse):
    best = {"step": 20, "val_nats": 1.5}
    words = last_words.best_words(best, Loss(last, 0.01), "plays")
    assert words.startswith("best val 1.5000 at step 20 on plays")
    assert ("; overfit since then: 1.5300 now" in words) is is_worse


def test_what_to_do_next():
    assert last_words.next_words("finished", 7, "out/a").endswith("sample.py --out_dir out/a")
    assert "stopped by SIGTERM at step 7" in last_words.next_words("SIGTERM", 7, "out/a")
