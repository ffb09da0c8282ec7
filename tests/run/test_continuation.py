"""Generation: nanoGPT's distribution, exactly, whatever is cached or cut into calls."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from gptjax.run.continuation import Continuation

N_NEW = 20


_CONFIG = tiny.model_config()
_MODERN = tiny.modern_config()


# Each of the few that the tests ask for is compiled once.
continuation = functools.cache(
    lambda model, **settings: Continuation(model, jax.devices()[0], **settings)
)


def model(config=_CONFIG):
    """A model whose next token depends on all before it: weights far from their initial values."""
    graph, _, state = tiny.parts(config, tiny.config())
    if config == _MODERN:
        rng = np.random.default_rng(0)
        drawn = jax.tree.map(lambda leaf: jnp.float32(rng.normal(size=leaf.shape)), state.params)
        return graph, drawn
    grown = jax.tree.map(lambda leaf: leaf * (12.0 if leaf.ndim == 2 else 1.0), state.params)
    # The head is the embedding: turned round, a token makes others likely rather than itself.
    grown["ln_f"]["scale"][...] = -grown["ln_f"]["scale"][...]
    return graph, grown


def continued(
    params,
    ids,
    *,
    num_samples=1,
    n_slots=N_NEW,
    seed=0,
    temperature=1.0,
    top_k=0,
    stride=1,
    n_symbols=tiny.VOCABULARY,
):
    """The new tokens of every sample, axes BT."""
    config = _MODERN if "head" in params else _CONFIG
    settings = dict(num_samples=num_samples, top_k=top_k, n_slots=n_slots, n_symbols=n_symbols)
    parts = continuation(config, **settings).tokens(
        params,
        np.asarray(ids),
        seed=seed,
        max_new_tokens=N_NEW,
        temperature=temperature,
        stride=stride,
    )
    return np.concatenate(list(parts), axis=1)


@pytest.mark.parametrize("config", [_CONFIG, _MODERN], ids=["nanogpt", "modern"])
@pytest.mark.parametrize(
    ("n_prompt", "stride"), [(1, 1), (3, 1), (7, 1), (12, 1), (3, 2), (12, 4), (7, 6)]
)
def test_greedy_equals_a_cache_free_reference_past_the_window(n_prompt, stride, config):
    """A full window loses its first token for the next one, or `stride` before the next one."""
    graph, params = model(config)
    ids = np.random.default_rng(n_prompt).integers(0, tiny.VOCABULARY, n_prompt).tolist()
    found = continued(params, ids, temperature=0.0, stride=stride)[0].tolist()
    reference, window = list(ids), ids[-7:]
    padded_BT = np.zeros((1, 7), np.int32)
    for _ in range(N_NEW):
        if stride > 1 and len(window) == 7:
            window = window[stride:]
        padded_BT[0, : len(window)] = window
        logits_BTV = tiny.apply(graph, params, jnp.asarray(padded_BT))
        token = int(np.argmax(logits_BTV[0, len(window) - 1]))
        window = [*window, token][-7:]
        reference.append(token)
    assert found == reference[n_prompt:]
    assert len(set(found)) > 2, "a model that repeats itself proves nothing"


@pytest.mark.parametrize("stride", [1, 3])
def test_same_seed_same_text_however_it_is_cut(stride):
    _, params = model()
    whole = continued(params, [3], num_samples=3, stride=stride)
    for n_slots in (1, 4):
        np.testing.assert_array_equal(
            continued(params, [3], num_samples=3, n_slots=n_slots, stride=stride), whole
        )
    assert not np.array_equal(continued(params, [3], num_samples=3, seed=1, stride=stride), whole)
    assert len({tuple(row) for row in whole.tolist()}) == 3


def test_a_sample_does_not_depend_on_how_many_there_are():
    _, params = model()
    np.testing.assert_array_equal(
        continued(params, [3], num_samples=2),
        continued(params, [3], num_samples=5)[:2],
    )


@pytest.mark.parametrize("stride", [1, 3])
@pytest.mark.parametrize(("temperature", "top_k"), [(0.0, 0), (0.0, 3), (1.0, 0), (2.0, 3)])
def test_symbols_that_pad_the_vocabulary_are_never_drawn(temperature, top_k, stride):
    """Though they are the likeliest: their rows of the head are others' ten times over."""
    _, params = model(_MODERN)
    n_symbols = 5
    head = params["head"]["kernel"]
    head[...] = head[...].at[:, n_symbols:].set(10 * head[...][:, :1])

    def drawn(n_symbols):
        settings = dict(temperature=temperature, top_k=top_k, stride=stride, n_symbols=n_symbols)
        return continued(params, [3], num_samples=3, **settings)

    assert drawn(tiny.VOCABULARY).max() >= n_symbols, "there is nothing to keep out"
    assert 0 < drawn(n_symbols).max() < n_symbols
