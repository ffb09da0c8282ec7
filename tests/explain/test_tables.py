"""What is shown beside a verdict."""

import by_hand
import pytest

from gptjax.explain import symptoms, tables
from gptjax.explain.pair import Pair
from gptjax.explain.series import Times


def test_a_text_known_by_its_digest_in_one_run_alone_is_compared_by_name():
    a = by_hand.series("a", corpus="tiny_shakespeare")
    b = by_hand.series("b", corpus="text:mine.txt", corpus_sha256="1f2e")
    table, _ = tables.differences(Pair(a, b))
    assert ["corpus", "tiny_shakespeare", "text:mine.txt", ""] in [list(row) for row in table.rows]


def test_texts_have_their_names_beside_the_beginning_of_their_digests():
    a = by_hand.series("a", corpus="text:mine.txt", corpus_sha256="86c4e6aa9db7c042")
    b = by_hand.series("b", corpus="text:mine.txt", corpus_sha256="83aadcc07573399f")
    table, _ = tables.differences(Pair(a, b))
    wanted = ["text", "text:mine.txt 86c4e6aa", "text:mine.txt 83aadcc0", ""]
    assert wanted in [list(row) for row in table.rows]


def test_a_setting_that_is_only_a_name_is_told_by_what_it_names():
    pair = Pair(*(by_hand.series(label, optim__name="adamw") for label in "ab"))
    _, equal = tables.differences(pair)
    assert "optimizer" in equal and "name" not in equal


def test_a_number_is_short_also_beside_one_that_is_not_known():
    a = by_hand.series("a", train_tokens=1_003_854)
    table, _ = tables.differences(Pair(a, by_hand.series("b")))
    row = next(list(each) for each in table.rows if each[0] == "passes over the text")
    assert row == ["passes over the text", "0.153", tables.UNKNOWN, ""]


def test_what_is_off_on_one_side_is_written_alike_on_both():
    a, b = by_hand.series("a", optim__grad_clip=1.0), by_hand.series("b", optim__grad_clip=0.0)
    table, _ = tables.differences(Pair(a, b))
    assert ["optim.grad_clip", "1.0", "0.0", ""] in [list(row) for row in table.rows]


def test_a_peak_that_is_not_known_can_be_told():
    known = by_hand.series("known", peak_flops_per_s=1e12)
    (said,) = tables.not_known([by_hand.series("gpu"), known])
    assert said == "gpu: what the device could do (--peak gpu=TFLOPS tells it)."


@pytest.mark.parametrize(("peak", "shown"), [(80e9, "49.6 %"), (39e9, tables.UNKNOWN)])
def test_no_mfu_is_above_100_percent(peak, shown):
    """3.97 GFLOP in 100 ms: 39.7 GFLOP/s."""
    run = by_hand.series("a", peak_flops_per_s=peak, times=Times(update_ms=100.0))
    (row,) = [list(row) for row in tables.times([run]).rows if row[0] == "MFU on its peak"]
    assert row == ["MFU on its peak", shown]


def test_a_logs_mfu_is_not_told_over_a_peak_that_is_too_low():
    """1 % of an A100's 312 TFLOP/s are 3.12."""
    low, high = (by_hand.series("a", shown_mfu=0.01, peak_flops_per_s=r) for r in (3e12, 6.24e12))
    assert "mfu" not in [each.kind for each in symptoms.symptoms(low)]
    (found,) = [each for each in symptoms.symptoms(high) if each.kind == "mfu"]
    assert found.values["own"] == 0.5
