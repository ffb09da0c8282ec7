"""What is said of a picture holds the numbers of the series."""

import to_draw

from gptjax.explain import captions


def test_losses_are_told_from_first_to_last():
    said = captions.losses([to_draw.LAPTOP, to_draw.GPU], "tokens", {"nanoGPT, A100": 1.4697})
    assert said == (
        "Loss in nats per token over tokens seen. Val of laptop falls from 4.1649 at update 0 to "
        "1.8857 at update 2,000, its last and best, standard error 0.0100; the end is at 1.536 M "
        "tokens; train ends at 1.7648. Val of gpu falls from 4.2823 at update 0 to 1.4723 at "
        "update 1,750, its best, and ends at 1.7093 at update 5,000, standard error 0.0100; the "
        "end is at 81.92 M tokens; train ends at 0.6175. A line across: nanoGPT, A100, 1.4697."
    )


def test_one_evaluation_is_no_fall():
    one = to_draw.series(update=[5], val=[1.7], train=[1.6])
    assert "Val of a is known once: 1.7000 at update 5," in captions.losses([one], "updates", {})
    rising = to_draw.series(update=[5, 6], val=[1.7, 1.8], train=[1.6, 1.5])
    said = captions.losses([rising], "updates", {})
    assert "Val of a rises from 1.7000 at update 5, its best, to 1.8000 at update 6" in said
    # A pretrained model may start below all that follows.
    worse = to_draw.series(val=(2.0, 2.4, 2.3, 2.5))
    said = captions.losses([worse], "updates", {})
    assert "rises from 2.0000 at update 0 to 2.3000 at update 20, its best, and ends at 2.5" in said


def test_the_floor_is_told():
    said = captions.losses([to_draw.everything()], "updates", {})
    assert said.endswith("A line across: floor of synthetic, 0.8300.")


def test_updates_are_told():
    assert captions.updates([to_draw.everything()], "lr") == (
        "Learning rate over updates. a starts at 0.001, is highest at update 1 with 0.001, and "
        "ends at 3.33e-05 at update 30."
    )
    assert "; its median is 0.129." in captions.updates([to_draw.everything()], "grad_norm")


def test_times_are_told():
    assert captions.ledger([to_draw.everything()]) == (
        "Time by kind of work, a bar a run. a took 19.0 s: step 9.0 s (47 %), eval 6.0 s (32 %), "
        "compile 4.0 s (21 %)."
    )
    said = captions.update_times([to_draw.LAPTOP, to_draw.GPU])
    assert "An update of laptop took 132 ms in the median, 5 to 95 % 95 ms to 1.48 s." in said
    assert "An update of gpu took 766 ms in the median; an evaluation took 88.6 s." in said
