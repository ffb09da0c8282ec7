"""Tokens of exactly known entropy: a Markov chain over GPT-2's vocabulary; no I/O.

After every id one of 16 others follows, with the same 16 probabilities in an order of its own. So
the entropy per token is that of these probabilities, whatever came before. Ids are as unequally
frequent as words: four in ten of all successors are among a hundredth of the ids.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gptjax.data.token_files import DTYPE, GPT2_VOCABULARY

N_SUCCESSORS = 16

# Chains side by side, unless they were shorter than that many tokens. Where a chain follows
# another the next id is any, which costs 10 nats at most: in 50,000 tokens 0.0002 each.
_MOST_CHAINS, _SHORTEST_CHAIN = 1024, 50_000

# Tokens of each chain that are drawn at once.
_BLOCK = 256


def probabilities() -> np.ndarray:
    """What an id's successors are drawn with, decreasing as 1/rank: whole 65,536ths, float64."""
    return np.diff(_limits()) / 2**16


def entropy_nats() -> float:
    """The entropy per token, nats: the mean of -ln P.

    Source: Shannon 1948, A Mathematical Theory of Communication, section 7: the entropies of the
    states, weighed by how often each is visited; here they are all the same.
    """
    shares = probabilities()
    return float(-(shares * np.log(shares)).sum())


def successors(seed: int) -> np.ndarray:
    """Each id's 16 successors, likeliest first, uint16.

    They are distinct by construction: successors of an id leave different remainders when divided
    by 16. Within its remainder a successor is drawn log-uniformly, which is Zipf's law.
    """
    n_ids, n_each = GPT2_VOCABULARY, N_SUCCESSORS
    raw = _generator(seed, 0).random_raw(n_ids * (n_each + 1)).reshape(n_ids, n_each + 1)
    remainders = (raw[:, :1] + np.arange(n_each, dtype=np.uint64)) % np.uint64(n_each)
    n_ranks = (n_ids - 1 - remainders) // np.uint64(n_each) + np.uint64(1)
    uniform = (raw[:, 1:] >> np.uint64(11)) / 2**53
    ranks = np.floor((n_ranks + 1) ** uniform).astype(np.uint64) - np.uint64(1)
    return (np.minimum(ranks, n_ranks - 1) * np.uint64(n_each) + remainders).astype(DTYPE)


def chains(table: np.ndarray, n_tokens: int, seed: int, *, stream: int) -> Iterator[np.ndarray]:
    """Yields blocks of several chains' tokens, one chain a row, of at least `n_tokens` in all.

    Streams of one seed, numbered from 1, are unrelated.
    """
    n_chains = min(_MOST_CHAINS, max(1, n_tokens // _SHORTEST_CHAIN))
    generator = _generator(seed, stream)
    states = (generator.random_raw(n_chains) % np.uint64(GPT2_VOCABULARY)).astype(np.intp)
    # Which successor each of the 65,536 equally likely numbers stands for.
    choice_of = np.repeat(np.arange(N_SUCCESSORS), np.diff(_limits()))
    flat = table.reshape(-1).astype(np.intp)
    for start in range(0, -(-n_tokens // n_chains), _BLOCK):
        n_steps = min(_BLOCK, -(-n_tokens // n_chains) - start)
        raw = generator.random_raw(-(-n_steps * n_chains // 4)).astype("<u8").view("<u2")
        choices = choice_of[raw[: n_steps * n_chains]].reshape(n_steps, n_chains)
        block = np.empty((n_steps, n_chains), DTYPE)
        for step in range(n_steps):
            states = flat[states * N_SUCCESSORS + choices[step]]
            block[step] = states
        yield block.T


def _limits() -> np.ndarray:
    """Where each successor's share of 65,536 begins, and the end of the last."""
    shares = 1 / np.arange(1, N_SUCCESSORS + 1)
    return np.rint(np.append(0, np.cumsum(shares)) / shares.sum() * 2**16).astype(np.int64)


def _generator(seed: int, stream: int) -> np.random.Philox:
    # Only its raw bits are used: numpy promises those for ever.
    return np.random.Philox(key=[seed, stream])
