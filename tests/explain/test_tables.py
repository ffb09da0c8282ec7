"""What is shown beside a verdict."""

import by_hand

from gptjax.explain import tables
from gptjax.explain.pair import Pair


def test_a_text_known_by_its_digest_in_one_run_alone_is_compared_by_name():
    a = by_hand.series("a", corpus="tiny_shakespeare")
    b = by_hand.series("b", corpus="text:mine.txt", corpus_sha256="1f2e")
    table, _ = tables.differences(Pair(a, b))
    assert ["corpus", "tiny_shakespeare", "text:mine.txt", ""] in [list(row) for row in table.rows]


def test_a_setting_that_is_only_a_name_is_told_by_what_it_names():
    pair = Pair(*(by_hand.series(label, optim__name="adamw") for label in "ab"))
    _, equal = tables.differences(pair)
    assert "optimizer" in equal and "name" not in equal


def test_a_peak_that_is_not_known_can_be_told():
    known = by_hand.series("known", peak_flops_per_s=1e12)
    (said,) = tables.not_known([by_hand.series("gpu"), known])
    assert said == "gpu: what the device could do (--peak gpu=TFLOPS tells it)."
