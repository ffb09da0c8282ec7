"""The numbers from 0 to n − 1 in another order, each where it is asked for: no list is made."""

from __future__ import annotations

import numpy as np

# Of a network of so many rounds on halves, four make a permutation that looks random (Luby and
# Rackoff, 1988); the others are for halves of few bits.
ROUNDS = 8


def shuffled(places: np.ndarray, n: int, keys: np.ndarray) -> np.ndarray:
    """Which number stands at each place, int64; `keys` are ROUNDS numbers, uint64.

    A Feistel network permutes a power of four that is n or more; what comes out too large goes in
    again (cycle walking, Black and Rogaway, 2002), so that the numbers below n are permuted.
    """
    n_bits = max(1, (max(n - 1, 1).bit_length() + 1) // 2)
    numbers = _permuted(places.astype(np.uint64), n_bits, keys)
    while (is_outside := numbers >= n).any():
        numbers[is_outside] = _permuted(numbers[is_outside], n_bits, keys)
    return numbers.astype(np.int64)


def _permuted(numbers: np.ndarray, n_bits: int, keys: np.ndarray) -> np.ndarray:
    """Numbers of 2 × n_bits bits as others, each once."""
    bits, mask = np.uint64(n_bits), np.uint64(2**n_bits - 1)
    left, right = numbers >> bits, numbers & mask
    for key in keys:
        left, right = right, left ^ (_mixed(right + key) & mask)
    return left << bits | right


def _mixed(numbers: np.ndarray) -> np.ndarray:
    """A hash of each. Source: SplitMix64 (Steele, Lea and Flood, 2014)."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))
