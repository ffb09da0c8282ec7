"""Which windows of the text a batch holds: pure functions, so that resuming needs no iterator."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from gptjax.data import shuffle
from gptjax.data.mapped import AnyIds

# Each split draws from a stream of its own, so that one's batches never mirror another's.
_STREAMS = {"train": 0, "val": 1}
_EPOCH_STREAMS = {"train": 2, "val": 3}

# Ids hashed together.
_CHUNK = 2**22


def offsets(
    seed: int,
    split: str,
    first: int,
    n_batches: int,
    *,
    n_tokens: int,
    block_size: int,
    batch_size: int,
    order: str = "random",
) -> np.ndarray:
    """First token of each window of batches `first`, `first` + 1, …: int64, a row a batch.

    A row depends on its own number alone. Windows are drawn uniformly with replacement, as
    nanoGPT's get_batch does; a window is block_size inputs and the token after the last. Only the
    raw bits of Philox are used: numpy promises those for ever, the distributions built on them it
    may change. With `order` "epoch" windows do not overlap, and none comes again before all others.

    Raises:
      ValueError: if the split is too short for one window.
    """
    n_offsets = n_tokens - block_size
    if n_offsets < 1:
        raise ValueError(f"{split}: {n_tokens} tokens cannot hold {block_size} + 1")
    if order == "epoch":
        return _epoch_offsets(seed, split, first, (n_batches, batch_size), n_tokens, block_size)
    generator = np.random.Philox(key=[seed, _STREAMS[split]])
    state: Any = generator.state
    raw_KB = np.empty((n_batches, batch_size), np.uint64)
    for row_B, index in zip(raw_KB, range(first, first + n_batches), strict=True):
        # The batch index is the counter's third word: the words below count within the batch. To
        # set it takes a fifth of the time of a generator for each batch.
        state["state"]["counter"][2] = index
        generator.state = state
        row_B[:] = generator.random_raw(batch_size)
    # The modulo's bias is n_offsets / 2**64: below 1e-10 for a billion tokens.
    return (raw_KB % np.uint64(n_offsets)).astype(np.int64)


def _epoch_offsets(
    seed: int, split: str, first: int, shape: tuple[int, int], n_tokens: int, block_size: int
) -> np.ndarray:
    """First tokens of windows, of which each epoch has all once, in an order of its own.

    What the last window leaves of the tokens stands before the first: as much as the epoch draws.
    """
    n_windows = (n_tokens - 1) // block_size
    n_left = n_tokens - 1 - n_windows * block_size
    places = np.arange(shape[0] * shape[1]) + first * shape[1]
    epochs, within = np.divmod(places, n_windows)
    offsets_W = np.empty_like(places)
    for epoch in np.unique(epochs).tolist():
        generator = np.random.Philox(key=[seed, _EPOCH_STREAMS[split]], counter=[0, 0, epoch, 0])
        *keys, shift = generator.random_raw(shuffle.ROUNDS + 1)
        here = epochs == epoch
        numbers_W = shuffle.shuffled(within[here], n_windows, np.array(keys, np.uint64))
        offsets_W[here] = numbers_W * block_size + int(shift) % (n_left + 1)
    return offsets_W.reshape(shape)


def sweep_offsets(*, n_tokens: int, block_size: int, max_tokens: int) -> np.ndarray:
    """First tokens of fixed, non-overlapping windows over a split: int64, in order.

    With max_tokens = 0 they cover the whole split; otherwise they are spread evenly over it and
    predict at most max_tokens tokens (but at least one window).
    """
    n_windows = (n_tokens - 1) // block_size
    n_kept = min(n_windows, max(1, max_tokens // block_size)) if max_tokens else n_windows
    return (np.arange(n_kept) * n_windows // n_kept * block_size).astype(np.int64)


def reading_offsets(n_tokens: int, block_size: int) -> np.ndarray:
    """First tokens of windows over one text, each half a window on from the last: int32, in order.

    A window is block_size inputs and the token after the last; the last window ends with the text,
    which has more tokens than one window. Of each the first half repeats what the window before
    predicts: all other tokens are predicted from half a window or more.
    """
    last = n_tokens - 1 - block_size
    half = max(1, block_size // 2)
    return np.array([*range(0, last, half), last], np.int32)


def sha256(ids: AnyIds) -> str:
    """The digest by which a split is recognised: of its dtype, length and ids."""
    digest = hashlib.sha256(f"{ids.dtype.str} {len(ids)} ".encode())
    for start in range(0, len(ids), _CHUNK):
        digest.update(np.ascontiguousarray(ids[start : start + _CHUNK]).data)
    return digest.hexdigest()
