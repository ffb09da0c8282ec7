"""From what was measured to what to set, and the line to train with."""

import pytest

from gptjax.speed import advice
from gptjax.speed.advice import Measured
from gptjax.speed.timing import Timing, Variant

ALL, FAST = tuple(range(20)), (0, 2, 4, 6, 8, 10)


def timed(cpus, ms, ratio=0.0, dtype="float32"):
    return Timing(Variant(cpus, dtype), (ms,) * 5, (ratio,) * 5 if ratio else ())


def measured(*timings, **changes):
    values = dict(
        platform="cpu",
        config=advice.LAPTOP,
        dtype="float32",
        max_iters=2000,
        timings=timings,
        rates={"float32": 100e9, "bfloat16": 60e9},
        dispatch_us=12.34,
        xla_flags="",
        is_busy=False,
    )
    return Measured(**values | changes)


def setting(name, found):
    (chosen,) = [each for each in advice.settings(found) if each.name == name]
    return chosen.value, chosen.reason


def test_fast_cores_that_are_better_by_themselves():
    found = measured(timed(ALL, 20.0), timed(FAST, 15.0, 0.75))
    assert setting("taskset", found) == (
        "-c 0,2,4,6,8,10",
        "there an update takes 0.75x the time that it takes on all CPUs",
    )
    # 706 s at 40.4 ms an update.
    assert setting("config", found) == (
        "configs/shakespeare_char_best.py",
        "val 1.44 in about 4 min 22 s, reckoned from 15 ms an update of the laptop recipe",
    )
    assert advice.command(found) == (
        "taskset -c 0,2,4,6,8,10 python scripts/train.py --config configs/shakespeare_char_best.py"
    )


def test_on_a_busy_machine_no_cores_are_left_out():
    found = measured(timed(ALL, 20.0), timed(FAST, 15.0, 0.75), is_busy=True)
    value, reason = setting("taskset", found)
    assert value == advice.NONE and "other work was running" in reason
    assert advice.command(found).startswith("python ")
    assert "reckoned from 20 ms" in setting("config", found)[1]
    narrow = timed(ALL, 10.0, 0.5, "bfloat16")
    found = measured(timed(ALL, 20.0), narrow, is_busy=True)
    assert setting("dtype", found)[0] == "float32"


@pytest.mark.parametrize(
    ("timings", "reason"),
    [
        ([timed(ALL, 20.0), timed(FAST, 25.0, 1.25)], "takes 1.25x the time on 6 CPUs"),
        ([timed(ALL, 20.0), timed((0,), 19.6, 0.98)], "0.98x the time on 1 CPU, which is within"),
        ([timed((0,), 20.0)], "there is one CPU"),
        (
            [timed(ALL, 20.0), Timing(Variant(FAST, "float32"), skipped="no time")],
            "fewer CPUs were not measured",
        ),
        ([Timing(Variant(ALL, "float32"), skipped="no time")], "not measured"),
        ([], "not measured"),
    ],
)
def test_no_taskset_where_it_gains_nothing(timings, reason):
    value, why = setting("taskset", measured(*timings))
    assert value == advice.NONE and reason in why


@pytest.mark.parametrize(
    ("ms", "config"),
    [
        (50.0, "configs/shakespeare_char_best.py"),
        (60.0, "configs/shakespeare_char_fast.py"),
        (300.0, "configs/shakespeare_char.py"),
        (3000.0, "configs/shakespeare_char.py"),
    ],
)
def test_a_slower_machine_gets_a_smaller_recipe(ms, config):
    assert setting("config", measured(timed(ALL, ms)))[0] == config


def test_a_recipe_that_was_given_is_kept():
    found = measured(timed(ALL, 30.0), config="mine.py", max_iters=100)
    words = "as given: 100 updates take 3 s, evaluations not counted"
    assert setting("config", found) == ("mine.py", words)
    words = "as given; its updates were not timed"
    assert setting("config", measured(config="mine.py")) == ("mine.py", words)
    assert setting("config", measured())[0] == "configs/shakespeare_char_fast.py"


def test_the_type_is_the_one_whose_updates_are_faster():
    fast = {"float32": 100e9, "bfloat16": 300e9}
    better = measured(timed(ALL, 30.0), timed(ALL, 20.0, 0.67, "bfloat16"), rates=fast)
    words = "updates in bfloat16 take 0.67x the time of float32"
    assert setting("dtype", better) == ("bfloat16", words)
    assert advice.command(better).endswith(" --config.model.dtype=bfloat16")
    worse = measured(timed(ALL, 30.0), timed(ALL, 40.0, 1.33, "bfloat16"), rates=fast)
    assert setting("dtype", worse)[0] == "float32" and "dtype" not in advice.command(worse)
    # Products alone do not say what updates gain.
    untimed = measured(timed(ALL, 30.0), rates=fast)
    assert setting("dtype", untimed)[0] == "float32"
    slower = measured(timed(ALL, 30.0))
    words = "bfloat16's matrix products run at 0.6x the rate of float32's"
    assert setting("dtype", slower) == ("float32", words)


def test_a_recipe_in_bfloat16_is_told_what_a_cpu_does_better():
    found = measured(config="configs/shakespeare_char_gpu.py", dtype="bfloat16")
    assert setting("dtype", found)[0] == "float32"
    assert advice.command(found).endswith("_gpu.py --config.model.dtype=float32")


def test_a_gpu_gets_its_own_recipe():
    rates = {"float32": 13e12, "TF32": 78e12, "bfloat16": 234e12}
    found = measured(platform="gpu", rates=rates)
    assert advice.command(found) == "python scripts/train.py --config " + (
        "configs/shakespeare_char_gpu.py"
    )
    old = measured(platform="gpu", rates={"float32": 8e12, "bfloat16": 4e12})
    assert advice.command(old).endswith(" --config.model.dtype=float32")


def test_calls_and_flags():
    assert setting("updates_per_dispatch", measured())[1].endswith("by itself takes 12.3 µs")
    assert setting("XLA_FLAGS", measured())[0] == advice.NONE
    assert "is set now" in setting("XLA_FLAGS", measured(xla_flags="--xla_x=1"))[1]


def test_what_is_worth_trying():
    rates = {"float32": 100e9, "bfloat16": 130e9}
    assert advice.is_worth_trying("bfloat16", rates)
    assert not advice.is_worth_trying("float32", rates)
    assert not advice.is_worth_trying("bfloat16", {**rates, "bfloat16": 110e9})
