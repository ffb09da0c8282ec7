"""What followed the last few tokens in the training text, counted once more token by token."""

import math
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import nnx

from gptjax.model import caches, followers, gpt
from gptjax.update import step

# Enough rows for all contexts, so that none is left out.
_OPTIONS = dict(n_layer=1, followers=3, follower_rows=500)
_CONFIG = tiny.model_config(**_OPTIONS)
_IDS = np.random.default_rng(0).integers(0, 4, 400).astype(np.uint16)
_SETTINGS = {f"model__{name}": value for name, value in _OPTIONS.items()}


@pytest.fixture(scope="module")
def parts():
    """A model's structure, its optimizer and its state, the tables filled."""
    graph, tx, state = tiny.parts(_CONFIG, tiny.config(**_SETTINGS))
    return graph, tx, state.replace(params=followers.with_counts(state.params, _CONFIG, _IDS))


def expected(context, without=None):
    """Logarithms of what the text lets expect after a context, of all parts but one."""
    V = tiny.VOCABULARY
    parts = [math.floor(i * followers.N_PARTS / len(_IDS)) for i in range(len(_IDS))]
    of_all = Counter(_IDS[1:].tolist())
    share_V = np.array([of_all[v] + 1 for v in range(V)]) / (len(_IDS) - 1 + V)
    for length in range(1, 4):
        if length > len(context):
            # As if nothing had followed: what is expected stays.
            continue
        places = [
            i
            for i in range(length, len(_IDS))
            if list(_IDS[i - length : i]) == list(context[-length:])
        ]
        if len(places) < 2:
            continue
        counts = Counter(int(_IDS[i]) for i in places if parts[i] != without)
        n, kinds = sum(counts.values()), len(counts)
        share_V = np.array(
            [
                (max(counts[v] - 0.8, 0) + (0.8 * kinds + 0.5) * share_V[v]) / (n + 0.5)
                for v in range(V)
            ]
        )
    return np.log(share_V)


@jax.jit
def _told(tables, ids_BT, first_B):
    model = followers.Followers(_CONFIG)
    nnx.update(model, tables)
    return model(ids_BT, first_B=first_B)[0]


def told(params, ids_T, first=None):
    """Log-probabilities of what follows each token."""
    first_B = None if first is None else jnp.array([first])
    return _told(params["followers"], jnp.asarray(ids_T)[None].astype(jnp.int32), first_B)


def test_logits_are_those_of_a_plain_count(parts):
    ids_T = _IDS[[3, 7, 1, 2, 250, 300, 4]]
    found_TV = told(parts[2].params, ids_T)
    wanted_TV = [expected(ids_T[: t + 1]) for t in range(len(ids_T))]
    np.testing.assert_allclose(found_TV, wanted_TV, atol=1e-4)
    np.testing.assert_allclose(np.exp(found_TV).sum(-1), 1, atol=1e-5)


def test_the_part_that_a_follower_is_in_is_left_out(parts):
    # 50 tokens a part: of the window that begins at 46, tokens to predict from the fourth on are in
    # the second.
    ids_T = _IDS[46:53]
    found_TV = told(parts[2].params, ids_T, first=46)
    wanted_TV = [expected(ids_T[: t + 1], without=(46 + t + 1) // 50) for t in range(7)]
    np.testing.assert_allclose(found_TV, wanted_TV, atol=1e-4)
    assert not np.allclose(found_TV, told(parts[2].params, ids_T), atol=0.1)


def test_the_commonest_contexts_get_the_rows():
    config = tiny.model_config(followers=2, follower_rows=5)
    _, _, state = tiny.parts(config, tiny.config(model__followers=2, model__follower_rows=5))
    params = followers.with_counts(state.params, config, _IDS)
    counts_RV = np.asarray(params["followers"]["counts"][1][...])
    pairs = Counter(zip(_IDS.tolist(), _IDS[1:-1].tolist(), strict=False))
    commonest = sorted(pairs.values())[-5:]
    np.testing.assert_array_equal(sorted(counts_RV.sum(1)), commonest)


def test_caches_tell_what_whole_windows_tell(parts):
    graph, _, state = parts
    ids_BT = jnp.asarray(_IDS[:14].reshape(2, 7).astype(np.int32))
    whole_BTV = tiny.apply(graph, state.params, ids_BT)

    @jax.jit
    def next_logits(ids_B1, kept, t):
        model = nnx.merge(graph, state.params)
        return model.next_logits(ids_B1, last=0, caches=kept, position_offset=t)

    kept = caches.empty_caches(_CONFIG, 2)
    for t in range(7):
        logits_BV, kept = next_logits(ids_BT[:, t : t + 1], kept, t)
        np.testing.assert_allclose(logits_BV, whole_BTV[:, t], atol=1e-4)


@pytest.fixture(scope="module")
def updated(parts):
    """From windows, and where they are said to begin: the state after an update, and its loss."""
    graph, tx, state = parts

    @jax.jit
    def update(state, first_AB, said_AB):
        x_ABT, y_ABT = step.windows(jnp.asarray(_IDS), first_AB, _CONFIG.block_size)
        return step.train_step(graph, tx, None, state, x_ABT, y_ABT, said_AB)

    def after(first_AB, said_AB=None, *, state=state):
        found, metrics = update(state, first_AB, first_AB if said_AB is None else said_AB)
        return found, metrics["loss"]

    return after


def test_an_update_changes_how_tables_are_read_and_no_table(parts, updated):
    state, _ = updated(jnp.array([[40, 300]]))
    was, now = parts[2].params["followers"], state.params["followers"]
    tables = [(was[name], now[name]) for name in ("keys", "counts", "part_counts", "part_tokens")]
    jax.tree.map(np.testing.assert_array_equal, *zip(*tables, strict=True))
    assert np.abs(now["reading_FD"][...]).max() > 0
    assert np.abs(now["gate_D"][...]).max() > 0


def test_what_never_followed_a_million_times_is_no_nan():
    """Each of eight lengths leaves what it knows not a millionth of what the shorter left."""
    config = tiny.model_config(followers=8, follower_rows=tiny.VOCABULARY)
    model = followers.Followers(config)
    ids_BT = jnp.zeros((1, 12), jnp.int32)
    code = np.zeros(1, np.uint32)
    for length in range(1, 9):
        code = code + np.uint32(1) * np.uint32(pow(followers._base(config), length - 1, 2**32))
        model.keys[length - 1][...] = (
            model.keys[length - 1][...].at[0].set(followers._keys(np, code)[0])
        )
        counts_RV = model.counts[length - 1][...]
        model.counts[length - 1][...] = counts_RV.at[0, 0].set(1e6).at[0, 1].set(1.0)
    log_NV, told_ND, _ = model(ids_BT)
    assert np.isfinite(log_NV).all() and np.isfinite(told_ND).all()
    assert log_NV[-1, 2] < -60


@pytest.mark.parametrize("gate", [-50.0, 50.0])
def test_the_last_stream_says_whose_word_counts(gate):
    model = followers.Followers(_CONFIG)
    model.gate_D[...] = model.gate_D[...].at[0].set(gate)
    logits_NV, counted_NV, x_ND = (
        np.random.default_rng(n).normal(size=(3, width)).astype(np.float32)
        for n, width in enumerate((tiny.VOCABULARY, tiny.VOCABULARY, _CONFIG.n_embd))
    )
    x_ND[:, 0] = 1
    of_both = [jax.nn.log_softmax(logits_NV), jax.nn.log_softmax(counted_NV)]
    found_NV = model.mixed(jnp.asarray(logits_NV), of_both[1], jnp.asarray(x_ND))
    np.testing.assert_allclose(found_NV, of_both[gate > 0], atol=1e-4)


def test_a_mix_is_of_probabilities():
    """At first the counts have sigmoid(-1) of it."""
    model = followers.Followers(_CONFIG)
    V = tiny.VOCABULARY
    logits_NV = np.random.default_rng(0).normal(size=(4, V)).astype(np.float32)
    counted_NV = np.log(np.random.default_rng(1).dirichlet(np.ones(V), 4)).astype(np.float32)
    found_NV = model.mixed(
        jnp.asarray(logits_NV), jnp.asarray(counted_NV), jnp.ones((4, _CONFIG.n_embd))
    )
    share = 1 / (1 + math.e)
    wanted_NV = share * np.exp(counted_NV) + (1 - share) * np.asarray(jax.nn.softmax(logits_NV))
    np.testing.assert_allclose(np.exp(found_NV), wanted_NV, rtol=1e-4)


def test_windows_of_a_batch_are_left_out_each_by_its_own_place(updated):
    _, at_once = updated(jnp.array([[40, 300]]))
    _, one_by_one = updated(jnp.array([[40], [300]]))
    np.testing.assert_allclose(at_once, one_by_one, rtol=1e-5)
    _, elsewhere = updated(jnp.array([[40, 300]]), jnp.array([[300, 40]]))
    assert abs(elsewhere - at_once) > 1e-3


def test_updates_in_one_call_say_where_their_windows_begin(parts, updated):
    graph, tx, state = parts
    first_AB = jnp.array([[40, 300]])
    _, metrics_K = jax.jit(
        lambda state: step.train_steps(
            graph, tx, None, _CONFIG.block_size, jnp.asarray(_IDS), state, first_AB[None], 1
        )
    )(state)
    np.testing.assert_allclose(metrics_K["loss"][0], updated(first_AB)[1], rtol=1e-5)


def test_weights_are_counted_without_the_tables(parts):
    params = parts[2].params
    n_all = sum(leaf.size for leaf in jax.tree.leaves(params))
    tables = jax.tree.leaves(step.weights_and_tables(params)[1])
    assert followers.counted_bytes(_CONFIG) == sum(leaf.nbytes for leaf in tables)
    assert gpt.expected_parameters(_CONFIG) == n_all - sum(leaf.size for leaf in tables)
    n_positions = _CONFIG.block_size * _CONFIG.n_embd
    assert gpt.n_parameters(params) == gpt.expected_parameters(_CONFIG) - n_positions
