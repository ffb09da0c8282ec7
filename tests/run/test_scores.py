"""What a text costs a model, against every token's loss computed by itself."""

import math

import jax
import numpy as np
import pytest
import tiny

from gptjax.config.config import flat
from gptjax.data.tokenizer import CharTokenizer, IdTokenizer
from gptjax.run.checkpoint import Checkpoint
from gptjax.run.scores import Score, scores
from gptjax.system.errors import UserError

T = 7  # the context


def checkpoint(tokenizer, **knobs):
    """A model of random weights, none of them small, and its tokenizer."""
    config = tiny.config(model__block_size=T, **knobs)
    graph, _, state = tiny.parts(tiny.model_config(vocab_size=tokenizer.vocab_size), config)
    keys = iter(jax.random.split(jax.random.key(3), 99))
    params = jax.tree.map(
        lambda leaf: leaf + 0.3 * jax.random.normal(next(keys), leaf.shape), state.params
    )
    meta = tiny.description(config) | {
        "config": flat(config) | {"model.bias": True},
        "tokenizer": tokenizer.to_json(),
    }
    return Checkpoint(0, meta, state.replace(params=params)), graph


def cost(found, graph, ids, j):
    """Nats of token j, predicted from those before it as far as the rule says; numpy by hand."""
    start = 0
    if j > T:  # Windows begin at every third token; the last one ends with the text.
        start = min(3 * math.ceil((j - T) / 3), len(ids) - 1 - T)
        assert T / 2 <= j - start <= T
    padded_T = np.zeros(T, np.int32)
    padded_T[: j - start] = ids[start:j]
    logits_V = np.asarray(tiny.apply(graph, found.state.params, padded_T[None]), np.float64)[
        0, j - start - 1
    ]
    return np.log(np.exp(logits_V - logits_V.max()).sum()) + logits_V.max() - logits_V[ids[j]]


@pytest.mark.parametrize("n_more", [1, 4, 5, 6, 7, 23])
def test_every_token_is_predicted_from_as_much_as_fits(n_more):
    """From all before it, or from half a context at least."""
    tokenizer = CharTokenizer("abcde")
    found, graph = checkpoint(tokenizer)
    rng = np.random.default_rng(n_more)
    prompt, *texts = ("".join(rng.choice(list("abcde"), n)) for n in (3, n_more, n_more))
    for text, score in zip(texts, scores(found, prompt, texts), strict=True):
        ids = tokenizer.encode(prompt + text)
        expected = np.mean([cost(found, graph, ids, j) for j in range(3, len(ids))])
        assert score.nats == pytest.approx(expected, rel=1e-5)
        assert (score.unit, score.n_scored, score.unknown) == ("char", n_more, [])


def test_texts_of_several_lengths_do_not_mix():
    found, _ = checkpoint(CharTokenizer("abcde"))
    texts = ["abc", "d", "edcbaedcbaedcba", "aaaaa"]
    together = scores(found, "ab", texts)
    for text, score in zip(texts, together, strict=True):
        (alone,) = scores(found, "ab", [text])
        assert score.nats == pytest.approx(alone.nats, rel=1e-6)
        assert score.n_scored == alone.n_scored == len(text)


def test_what_a_tokenizer_does_not_know_is_left_out_and_named():
    found, _ = checkpoint(CharTokenizer("abcde"))
    with_strangers, without, nothing = scores(found, "a", ["bxéaxc", "bac", "XY"])
    assert with_strangers.nats == without.nats
    assert (with_strangers.n_scored, with_strangers.unknown) == (3, ["x", "é"])
    assert math.isnan(nothing.nats) and (nothing.n_scored, nothing.unknown) == (0, ["X", "Y"])
    with pytest.raises(UserError, match="prompt: 'x'"):
        scores(found, "x", ["a"])


def test_ids_are_scored_per_token():
    tokenizer = IdTokenizer(5)
    found, graph = checkpoint(tokenizer)
    known, stranger = scores(found, "3", [" 1 2 4 0", " 1 2 5 4 0 x"])
    expected = np.mean([cost(found, graph, np.array([3, 1, 2, 4, 0]), j) for j in range(1, 5)])
    assert known == Score(pytest.approx(expected, rel=1e-5), "token", 4, [])
    assert (stranger.nats, stranger.n_scored, stranger.unknown) == (known.nats, 4, ["5", "x"])
