"""How well a model predicts a text: any model, any text, of it what its tokenizer can encode."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence

import jax
import numpy as np

from gptjax.data import batches
from gptjax.data.tokenizer import Tokenizer
from gptjax.device import kernels
from gptjax.run.checkpoint import Checkpoint
from gptjax.run.evaluator import tokens_per_batch
from gptjax.run.metadata import model_config, stored_tokenizer
from gptjax.update.step import model_graph, token_losses


@dataclasses.dataclass(frozen=True)
class Score:
    """The mean loss of what follows a prompt.

    Attributes:
      nats: per `unit`, "char" or, where tokens are no text, "token"; NaN if nothing was encoded.
      n_scored: how many units were predicted.
      unknown: what the tokenizer does not know of the text: it was left out.
    """

    nats: float
    unit: str
    n_scored: int
    unknown: list[str]


def scores(found: Checkpoint, prompt: str, texts: Sequence[str]) -> list[Score]:
    """The score of each continuation of a prompt.

    Each token is predicted from all before it, or, where they do not fit the model's context, from
    at least half a context.

    Raises:
      UserError: if the prompt cannot be encoded.
    """
    tokenizer = stored_tokenizer(found.meta)
    prompt_ids = tokenizer.encode(prompt, what="prompt")
    parts = [tokenizer.known_part(text) for text in texts]
    ids = [tokenizer.encode(known) if known else prompt_ids[:0] for known, _ in parts]
    losses = _losses(found, [np.concatenate([prompt_ids, each]).astype(np.int32) for each in ids])
    return [
        _score(tokenizer, known, unknown, losses_N[len(prompt_ids) - 1 :])
        for (known, unknown), losses_N in zip(parts, losses, strict=True)
    ]


def _score(tokenizer: Tokenizer, known: str, unknown: list[str], losses_N: np.ndarray) -> Score:
    is_text = tokenizer.bytes_per_token is not None
    n_scored = len(known) if is_text else len(losses_N)
    nats = float(losses_N.sum()) / n_scored if n_scored else math.nan
    return Score(nats, "char" if is_text else "token", n_scored, unknown)


def _losses(found: Checkpoint, texts: Sequence[np.ndarray]) -> list[np.ndarray]:
    """What each token but the first of each text costs, nats, float64."""
    model, device = model_config(found.meta), jax.devices()[0]
    T = model.block_size
    # A short text is padded: no token looks at what follows it.
    padded = [np.pad(ids, (0, max(0, T + 1 - len(ids)))) for ids in texts]
    offsets = [batches.reading_offsets(len(ids), T) for ids in padded]
    pairs = list(zip(padded, offsets, strict=True))
    windows = [ids[start[:, None] + np.arange(T + 1)[None]] for ids, start in pairs]
    n_at_once = tokens_per_batch(model, device.platform)
    losses_WT = _window_losses(found, np.concatenate(windows), n_at_once)
    ends = np.cumsum([len(start) for start in offsets])[:-1]
    found_losses = []
    for ids, start, own_WT in zip(texts, offsets, np.split(losses_WT, ends), strict=True):
        losses_N = np.empty(start[-1] + T)
        # Backwards, so that what two windows predict is taken from the one that has read more.
        for first, window_T in zip(start[::-1], own_WT[::-1], strict=True):
            losses_N[first : first + T] = window_T
        found_losses.append(losses_N[: len(ids) - 1])
    return found_losses


def _window_losses(found: Checkpoint, windows_WT: np.ndarray, n_tokens: int) -> np.ndarray:
    """The losses of windows' tokens, a batch of about `n_tokens` tokens after another."""
    model = model_config(found.meta)
    model = kernels.for_evaluation(model, jax.devices()[0])
    n_windows, batch_size = len(windows_WT), max(1, n_tokens // model.block_size)
    padded_WT = np.pad(windows_WT, ((0, -n_windows % batch_size), (0, 0)))
    losses_of = jax.jit(functools.partial(token_losses, model_graph(model)))
    with kernels.matmul_precision(model):
        params = jax.device_put(found.state.params)
        losses = [
            np.asarray(losses_of(params, padded_WT[first : first + batch_size]), np.float64)
            for first in range(0, len(padded_WT), batch_size)
        ]
    return np.concatenate(losses)[:n_windows]
