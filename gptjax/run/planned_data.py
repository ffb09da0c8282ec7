"""What a plan takes the corpus for: as it is on this machine, or as it is assumed to be."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import ml_collections
import numpy as np

from gptjax.data import corpus, texts, whereabouts
from gptjax.data.corpus import Corpus
from gptjax.data.splits import Splits
from gptjax.data.token_files import GPT2_VOCABULARY
from gptjax.data.tokenizer import IdTokenizer
from gptjax.run.inputs import Inputs, read_inputs

# Tiny Shakespeare's symbols, which other texts in English have about as many of.
_SHAKESPEARE_SYMBOLS = 65

# Random tokens to measure with where there are no others.
_RANDOM, _N_RANDOM = "random tokens", 1_000_000


@dataclasses.dataclass(frozen=True)
class PlannedData:
    """A corpus, or what is assumed of it.

    Attributes:
      n_symbols: of the vocabulary, without padding.
      n_tokens: the splits' lengths; 0 where nothing tells.
      bytes_per_token: what one takes in a device's memory.
      source: where all that is from, in words.
      inputs: what updates can be measured with: the corpus itself, or random tokens of as many
        symbols.
    """

    n_symbols: int
    n_tokens: dict[str, int]
    bytes_per_token: int
    source: str
    inputs: Inputs

    @property
    def n_compiled(self) -> int:
        """Tokens of both splits, or, where nothing tells, so few that they take no room."""
        return sum(self.n_tokens.values()) or 2


def planned_data(config: ml_collections.ConfigDict) -> PlannedData:
    """What a config trains on. Nothing is downloaded: what is not here is assumed.

    Raises:
      UserError: if the source is of no known kind, or what is here of it cannot be used.
    """
    source, block_size = config.data.source, config.model.block_size
    corpus.check_source(source)
    kind, _, argument = source.partition(":")
    if not _is_here(kind, argument):
        return _assumed(kind, source, config)
    # That a split is too short is for the plan to say, not for what reads it.
    found = read_inputs(_with_shortest_windows(config))
    n_tokens, n_symbols = found.n_tokens, found.tokenizer.vocab_size
    bytes_per_token = found.splits.train.dtype.itemsize
    is_long_enough = min(n_tokens.values()) > block_size
    return PlannedData(
        n_symbols,
        n_tokens,
        bytes_per_token,
        f"read: {found.corpus.name}",
        found if is_long_enough else _random(n_symbols, block_size),
    )


def _is_here(kind: str, argument: str) -> bool:
    """Whether a source can be read without a network."""
    if kind == "tiny_shakespeare":
        return bool(whereabouts.tiny_shakespeare().where)
    if kind == "tfds":
        return False  # Only TFDS itself could tell, which may begin to download it.
    return kind == "synthetic" or Path(argument).exists()


def _assumed(kind: str, source: str, config: ml_collections.ConfigDict) -> PlannedData:
    n_tokens, n_symbols = {"train": 0, "val": 0}, _SHAKESPEARE_SYMBOLS
    words = f"{source} is not read; 65 symbols assumed, as in Tiny Shakespeare"
    tokenizer = config.data.tokenizer
    if tokenizer != "char":  # How many tokens become of a text, nothing tells before it is read.
        learnt = tokenizer.removeprefix("bpe:")
        n_symbols = int(learnt) if learnt.isdigit() else GPT2_VOCABULARY
        words = f"{source} is not here yet; {n_symbols:,} symbols of {tokenizer} assumed"
    elif kind == "tiny_shakespeare":
        n_train = int(corpus.SHAKESPEARE_SIZE * (1 - config.data.val_fraction))
        n_tokens = {"train": n_train, "val": corpus.SHAKESPEARE_SIZE - n_train}
        words = "Tiny Shakespeare is not here yet; its size is known"
    elif kind == "tokens":
        n_symbols = GPT2_VOCABULARY
        words = f"{source} is not here yet; GPT-2's 50,257 symbols assumed"
    inputs = _random(n_symbols, config.model.block_size)
    return PlannedData(n_symbols, n_tokens, inputs.splits.train.dtype.itemsize, words, inputs)


def _random(n_symbols: int, block_size: int) -> Inputs:
    """Random tokens, enough for windows of `block_size`."""
    n_random = max(_N_RANDOM, 10 * block_size)
    dtype = np.min_scalar_type(n_symbols - 1)
    tokens = np.random.default_rng(0).integers(0, n_symbols, n_random).astype(dtype)
    n_val = n_random // 10
    splits = Splits(tokens[n_val:], tokens[:n_val], None)
    corpus = Corpus(_RANDOM, texts.Text(_RANDOM, "", 0, "", b""))
    return Inputs(corpus, IdTokenizer(n_symbols), splits, "")


def _with_shortest_windows(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    config = config.copy_and_resolve_references()
    config.model.block_size = 1
    return config
