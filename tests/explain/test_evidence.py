"""What is said of two runs, by hand: the right cause first, and none that is not there."""

import math
import re

import by_hand
import pytest

from gptjax.explain.evidence import findings, headline, headline_alone
from gptjax.explain.finding import Noise
from gptjax.explain.pair import Pair
from gptjax.explain.recipes import cards
from gptjax.explain.series import Times
from gptjax.explain.verdict import FORMS, MOST, TEMPLATES, sentence, sentences

END = ((0, 4.2), (1000, 2.1), (2000, 1.9))
LOWER = ((0, 4.2), (1000, 2.0), (2000, 1.7))


def kinds(a, b, **more):
    return [each.kind for each in findings(Pair(a, b, **more))]


def first(a, b, **more):
    """The first sentence."""
    return sentences(findings(Pair(a, b, **more)))[0]


class TestOneSetting:
    @pytest.mark.parametrize(
        ("changed", "group"),
        [
            (dict(model__dropout=0.2), "dropout"),
            (dict(optim__learning_rate=3e-3), "learning rate"),
            (dict(model__n_embd=64, parameters=200_000), "model size"),
            (dict(model__norm="rmsnorm"), "architecture"),
            (dict(optim__name="muon"), "optimizer"),
        ],
    )
    def test_is_the_cause_of_what_is_beyond_noise(self, changed, group):
        base = by_hand.series("a", END, model__norm="layernorm", optim__name="adamw")
        other = dict(model__norm="layernorm", optim__name="adamw") | changed
        said = first(base, by_hand.series("b", LOWER, **other))
        assert said.startswith(f"Only the {group} differs"), said
        assert "the gap of 0.200 is its" in said

    @pytest.mark.parametrize(
        ("changed", "values"),
        [
            (dict(model__followers=8), "followers 0; followers 8"),
            (dict(optim__beta2=0.95), "beta2 0.99; beta2 0.95"),
            (dict(model__norm="rmsnorm"), "layernorm; rmsnorm"),
        ],
    )
    def test_is_named_where_its_value_is_a_riddle(self, changed, values):
        known = dict(model__norm="layernorm", model__followers=0, optim__beta2=0.99)
        known |= dict(optim__name="adamw")
        base, other = (by_hand.series(n, END, **known | c) for n, c in (("a", {}), ("b", changed)))
        (found,) = [f for f in findings(Pair(base, other)) if "a_value" in f.values]
        assert f"{found.values['a_value']}; {found.values['b_value']}" == values

    def test_within_noise_is_none(self):
        near = ((0, 4.2), (1000, 2.1), (2000, 1.89))
        said = first(by_hand.series("a", END), by_hand.series("b", near, model__dropout=0.2))
        assert "makes no difference beyond noise (0.010; noise: 0.014)" in said

    def test_of_length_is_told_at_equal_updates(self):
        longer = ((0, 4.2), (1000, 2.1), (2000, 1.95), (4000, 1.7))
        b = by_hand.series("b", longer, train__max_iters=4000)
        said = first(by_hand.series("a", END), b)
        assert said.startswith("Only the length differs (2000; 4000): the gap of 0.200 is its.")
        assert "At 2,000 updates both, b is 0.050 higher (1.9000, 1.9500)." in said

    def test_of_batch_is_told_at_equal_updates_and_tokens(self):
        more = dict(train__batch_size=48, tokens_per_update=3072)
        said = first(
            by_hand.series("a", END), by_hand.series("b", ((500, 2.2), *LOWER[1:]), **more)
        )
        assert "At 2,000 updates both, b is 0.200 lower" in said
        assert "At 1.54 M tokens both, b is 0.300 higher" in said

    def test_of_batch_at_equal_tokens_is_one(self):
        more = dict(train__batch_size=24, tokens_per_update=1536, train__max_iters=1000)
        said = first(by_hand.series("a", END), by_hand.series("b", ((1000, 2.2),), **more))
        assert said.startswith("Only the batch differs (12; 24), at equal tokens (1.54 M)")

    def test_of_precision_within_rounding_is_no_cause(self):
        near = ((0, 4.2), (1000, 2.1), (2000, 1.905))
        pair = (by_hand.series("a", END), by_hand.series("b", near, model__dtype="bfloat16"))
        assert kinds(*pair)[0] == "only_precision"

    def test_of_the_seed_is_chance(self):
        said = first(by_hand.series("a", END), by_hand.series("b", LOWER, seed=7))
        assert "the seed differs (1337, 7): the gap of 0.200 is what chance gives" in said

    def test_is_not_claimed_to_be_the_only_one_where_others_are_not_known(self):
        b = by_hand.series("b", LOWER, model__dropout=0.2, optim__learning_rate=None)
        assert first(by_hand.series("a", END), b).startswith("As far as known only the dropout")


class TestManySettings:
    def test_are_listed_by_size_and_get_no_shares(self):
        b = by_hand.series(
            "b",
            ((0, 4.2), (2000, 1.5), (5000, 1.4)),
            model__block_size=256,
            train__batch_size=64,
            train__max_iters=5000,
            model__dropout=0.2,
            parameters=10_646_784,
            model__n_layer=6,
            tokens_per_update=16_384,
            flops_per_update=3_969_515_520.0 * 292.9,
        )
        found = findings(Pair(by_hand.series("a", END), b))
        said = sentences(found)
        assert said[0] == (
            "These are two experiments: 21.3x the tokens an update (768, 16,384), 13.4x the "
            "parameters (0.796 M, 10.6 M), 4.00x the context (64, 256), 2.50x the updates "
            "(2,000, 5,000), dropout 0.0 and 0.2. Together b saw 53.3x the tokens and spent "
            "732x the FLOPs."
        )
        assert said[-1].endswith("python scripts/ladder.py --from out/a --to out/b")
        assert not any("cause" in words or " is its" in words for words in said)
        assert "contexts" in [each.kind for each in found]

    def test_of_one_kind_are_named_without_their_values(self):
        base = dict(model__norm="layernorm", model__mlp="gelu", optim__schedule="cosine")
        other = dict(model__norm="rmsnorm", model__mlp="relu2", optim__schedule="linear")
        b = by_hand.series("b", LOWER, train__max_iters=1000, **other)
        assert first(by_hand.series("a", END, **base), b).startswith(
            "These are two experiments: 0.500x the updates (2,000, 1,000), another architecture "
            "(norm, mlp), another schedule (schedule)."
        )

    def test_a_losss_context_that_was_measured_has_its_number(self):
        from gptjax.explain.curves import Reading

        b = by_hand.series("b", LOWER, model__block_size=256)
        (found,) = [
            each
            for each in findings(
                Pair(by_hand.series("a", END), b, at_context=("b", Reading(1.75, 0.01)))
            )
            if each.kind == "contexts_measured"
        ]
        assert sentence(found).startswith("Of unlike contexts comes 0.050")


class TestTheSameSettings:
    def test_and_the_same_losses_are_bit_for_bit_the_same(self):
        assert kinds(by_hand.series("a", END), by_hand.series("b", END)) == ["identical"]

    def test_and_nearly_the_same_losses_are_rounding(self):
        near = ((0, 4.2), (1000, 2.1), (2000, 1.9004))
        assert kinds(by_hand.series("a", END), by_hand.series("b", near)) == ["same_recipe"]
        elsewhere = by_hand.series("b", near, device="NVIDIA H100")
        said = first(by_hand.series("a", END), elsewhere)
        assert said.startswith(
            "Only the device differs (device cpu; device NVIDIA H100), and makes"
        )

    def test_in_two_programs_are_one_recipe_whose_random_numbers_differ(self):
        recipe = cards()["laptop"]
        settings = {name.replace(".", "__"): value for name, value in recipe.settings.items()}
        own = dict(recipe=cards()["shakespeare_char"].name, data__val_fraction=0.1, **settings)
        others = dict(program="nanoGPT", recipe=recipe.name, **settings)
        for end, kind in ((1.925, "same_recipe_noise"), (2.1, "suspected_bug_of_a_program")):
            at_end = ((0, 4.16), (2000, end))
            pair = (by_hand.series("a", END, **own), by_hand.series("b", at_end, **others))
            assert kinds(*pair)[0] == kind

    def test_in_two_programs_say_where_noise_is_not_known(self):
        assert kinds(by_hand.series("a", END), by_hand.series("b", LOWER, program="nanoGPT")) == [
            "other_random_numbers"
        ]

    def test_of_which_the_start_is_not_known_says_nothing_of_it(self):
        pair = [by_hand.series(label, val[1:]) for label, val in (("a", END), ("b", LOWER))]
        assert "Before training" not in first(*pair)
        assert kinds(*pair) == ["suspected_bug_only"]

    def test_and_other_losses_are_a_bug(self):
        said = first(by_hand.series("a", END), by_hand.series("b", LOWER))
        assert "yet b is 0.200 lower: a bug, or something that is not recorded" in said

    def test_that_are_not_known_are_not_the_same(self):
        unknown = {name.replace(".", "__"): None for name in by_hand.LAPTOP}
        found = kinds(by_hand.series("a", END), by_hand.series("b", END, **unknown))
        assert found == ["settings_unknown"]

    def test_and_slower_updates_cost_time_and_no_loss(self):
        a = by_hand.series("a", END, times=Times(update_ms=40.0, n_updates=100))
        b = by_hand.series("b", END, times=Times(update_ms=100.0, n_updates=100))
        assert kinds(a, b) == ["identical", "slower"]
        (said,) = sentences(findings(Pair(a, b)))
        assert "bit for bit" in said and "2.50x as long in b as in a" in said
        assert kinds(b, a) == ["identical", "slower"]
        nearly = by_hand.series("b", END, times=Times(update_ms=50.0, n_updates=100))
        assert kinds(a, nearly) == ["identical"]


def test_curves_that_do_not_meet_are_told_in_the_units_of_each_axis():
    more = dict(
        model__n_layer=6,
        parameters=10_646_784,
        train__max_iters=5000,
        train__batch_size=64,
        tokens_per_update=16_384,
        flops_per_update=1.16e12,
    )
    pair = Pair(by_hand.series("a", ((2000, 1.9),)), by_hand.series("b", ((5000, 1.7),), **more))
    said = [words for words in sentences(findings(pair)) if "do not meet" in words]
    assert said == [
        "At equal updates the curves do not meet: b's first evaluation is at 5,000, a ends at "
        "2,000. At equal tokens or FLOPs the curves do not meet: b's first evaluation is at "
        "81.9 M tokens, a ends at 1.54 M."
    ]


def test_another_text_is_told_first_and_nothing_after_it():
    b = by_hand.series("b", LOWER, corpus="synthetic", model__dropout=0.2)
    found = findings(Pair(by_hand.series("a", END), b))
    assert [each.kind for each in found] == ["other_text"]
    assert "(tiny_shakespeare, synthetic)" in sentence(found[0])


def test_of_one_text_in_other_tokens_no_loss_is_compared_but_bits_per_byte_are():
    """1.9 nats are 2.7411 bits; a token of b has two bytes."""
    a = by_hand.series("a", END, val_bytes_per_token=1.0, data__tokenizer="char")
    b = dict(val_bytes_per_token=2.0, vocab_size=300, model__dropout=0.2)
    lower = ((0, 5.7), *LOWER[1:])
    for known, words in (({"data__tokenizer": "bpe:300"}, "bpe:300, "), ({}, "")):
        found = findings(Pair(a, by_hand.series("b", lower, **b, **known)))
        assert [each.kind for each in found] == ["other_tokens"]
        assert f"(char, 65 symbols; {words}300 symbols)" in sentence(found[0])
        assert "they end at 2.7411 and 1.2263" in sentence(found[0])
    # With another text it is that which is told.
    other = by_hand.series("b", lower, **b, corpus="synthetic", data__tokenizer="bpe:300")
    assert kinds(a, other) == ["other_text"]


def test_tokens_that_an_older_log_does_not_name_are_no_difference():
    a, b = by_hand.series("a", END, data__tokenizer="char"), by_hand.series("b", END)
    assert kinds(a, b)[0] == "identical"


def test_of_unlike_texts_bits_per_byte_are_told_where_they_are_known():
    """1.9 nats are 2.7411 bits; a token of b has two bytes."""
    a = by_hand.series("a", END, val_bytes_per_token=1.0)
    b = by_hand.series("b", END, corpus="synthetic", val_bytes_per_token=2.0)
    assert "they end at 2.7411 and 1.3706" in first(a, b)
    assert "bits" not in first(a, by_hand.series("b", END, corpus="synthetic"))


def test_overfitting_that_is_the_larger_term_is_told_first():
    """The gap of 0.1 at the end is a rise of 0.4 that hides a best 0.3 lower."""
    risen = ((0, 4.2), (1000, 1.6), (2000, 2.0))
    b = by_hand.series("b", risen, train=(4.2, 1.5, 0.7), model__dropout=0.1)
    assert kinds(by_hand.series("a", END), b)[:2] == ["overfitted", "only_one"]
    slightly = ((0, 4.2), (1000, 1.5), (2000, 1.55))
    b = by_hand.series("b", slightly, train=(4.2, 1.5, 0.7), model__dropout=0.1)
    assert kinds(by_hand.series("a", END), b)[:2] == ["only_one", "overfitted"]


@pytest.mark.parametrize("spread", [0.0, 0.05, 0.2])
def test_the_spread_of_the_seed_is_noise(spread):
    pair = Pair(
        by_hand.series("a", END),
        by_hand.series("b", ((0, 4.2), (2000, 1.8)), model__dropout=0.2),
        spreads={"a": spread, "b": spread},
    )
    is_noise = 0.1 < 2 * math.hypot(spread, spread, 0.01, 0.01)
    assert (findings(pair)[0].kind == "only_one_noise") == is_noise


def test_noise_says_what_is_not_known_of_it():
    assert Noise.of(estimate=(0.3, 0.4), seed=()) == Noise(0.5)
    assert Noise.of(estimate=(0.3, math.nan), seed=(math.nan,)) == Noise(0.3, ("estimate", "seed"))


def test_the_headline_has_both_ends():
    pair = Pair(by_hand.series("a", END), by_hand.series("b", LOWER))
    assert sentence(headline(pair)) == (
        "a ends at val 1.9000, b at 1.7000: b is 0.200 lower (noise: 0.014)."
    )


def test_a_run_that_is_under_way_is_told():
    said = sentences(findings(Pair(by_hand.series("a", END), by_hand.series("b", END[:2]))))
    assert (
        "b's last loss is after 1,000 of 2,000 planned updates: it is not where the run ends."
        in said
    )


def test_one_run_has_its_end():
    said = sentence(headline_alone(by_hand.series("a", END, train=(4.2, 2.0, 1.8))))
    assert said == "a ends at val 1.9000, train 1.8000, after 2,000 updates."
    nothing = by_hand.series("a", ((0, 4.2),))
    assert sentence(headline_alone(nothing)) == "a has no loss after an update."


@pytest.mark.parametrize(
    ("value", "words"),
    [(732.4, "732x"), (53.33, "53.3x"), (4.0, "4.00x"), (0.5, "0.500x"), (4.32e-5, "0.0000432x")],
)
def test_a_ratio_has_three_digits(value, words):
    assert FORMS["ratio"](value) == words


def test_no_template_holds_a_number():
    """All digits of a sentence are values of its finding."""
    for kind, template in TEMPLATES.items():
        assert not re.search(r"\d", re.sub(r"\{[^}]*\}", "", template)), kind


def test_at_most_eight_are_told_and_the_command_stays():
    from gptjax.explain.finding import Finding

    many = [Finding("not_a_number", dict(run="a", update=i), rank=1) for i in range(20)]
    paths = dict(a_path="x", b_path="y")
    said = sentences([*many, Finding("cannot_share", paths, rank=8)])
    assert len(said) == MOST and said[-1].endswith("--from x --to y")


class TestCounts:
    """Of a model that is told what followed in its training text."""

    def test_a_start_below_guessing_is_no_fault(self):
        losses = ((0, 2.4), (1000, 1.6), (2000, 1.5))
        a = by_hand.series("a", END, vocab_size=65)
        for told, is_fault in ((0, True), (8, False)):
            b = by_hand.series("b", losses, vocab_size=65, model__followers=told)
            assert ("start_off" in kinds(a, b)) == is_fault

    def test_a_low_train_loss_is_not_by_heart(self):
        for told, is_said in ((0, True), (8, False)):
            b = by_hand.series("b", ((2000, 1.5),), train=(1.1,), model__followers=told)
            assert ("one_evaluation" in kinds(by_hand.series("a", END), b)) == is_said
