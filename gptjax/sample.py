"""Writing text with a trained model, from its run directory alone."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from gptjax.device import kernels, mesh
from gptjax.model import generate
from gptjax.run import checkpoint
from gptjax.run.metadata import model_config, stored_tokenizer
from gptjax.system import cache
from gptjax.system.command import printable
from gptjax.system.errors import UserError
from gptjax.update.step import model_graph, named_key

# Tokens per dispatch: text appears this many at a time.
_TOKENS_PER_DISPATCH = 32

_LARGEST_PROMPT_FILE = 1_000_000  # bytes


def sample(
    out_dir: str,
    *,
    step: str,
    prompt: str,
    prompt_file: str,
    num_samples: int,
    max_new_tokens: int,
    temperature: float,
    top_k: int,
    seed: int,
    stride: int,
) -> None:
    """Prints `num_samples` continuations of a prompt, the first one as it is written.

    A full window moves on by `stride` tokens at once: 1 is nanoGPT's way, more is quicker. An
    empty prompt starts from the tokenizer's own, a newline where it has one.

    Raises:
      UserError: for a number out of range, a character the model does not know, or no checkpoint.
    """
    _check_ranges(num_samples, max_new_tokens, temperature, top_k, seed)
    text = _prompt_text(prompt, prompt_file)
    cache.keep_compiled_programs()
    mesh.available_devices()  # Asked for here, a backend that is missing is a clear error.
    with checkpoint.open_for_reading(out_dir) as checkpoints:
        found = checkpoints.restore(checkpoint.select_step(checkpoints, step))
    tokenizer = stored_tokenizer(found.meta)
    text = text or tokenizer.default_prompt
    ids = tokenizer.encode(text, what="prompt")
    block_size = model_config(found.meta).block_size
    most = max(1, block_size - 1)
    if not 1 <= stride <= most:
        raise UserError("--stride", stride, f"must be from 1 to {most}, block_size - 1")
    if len(ids) > block_size:
        print(
            f"gptjax: the prompt has {len(ids)} tokens; the model sees the last {block_size}",
            file=sys.stderr,
        )
    corpus = found.meta["corpus"]
    if corpus["fallback_reason"]:
        print(
            f"gptjax: this model was trained on the {corpus['name']} corpus, not on "
            f"{corpus['requested']}",
            file=sys.stderr,
        )
    chunks = continuations(
        found,
        ids,
        num_samples=num_samples,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        seed=seed,
        stride=stride,
    )
    written: list[np.ndarray] = []
    _write(text)
    for tokens_BK in chunks:
        _write(tokenizer.decode(tokens_BK[0]))
        written.append(tokens_BK)
    _write("\n---------------\n")
    tokens_BT = np.concatenate(written, axis=1)
    for tokens_T in tokens_BT[1:]:
        _write(text + tokenizer.decode(tokens_T) + "\n---------------\n")


def continuations(
    found: checkpoint.Checkpoint, ids: np.ndarray, *, seed: int, **settings: Any
) -> Iterator[np.ndarray]:
    """Yields the next few tokens of every sample, axes B and up to _TOKENS_PER_DISPATCH."""
    # Most tokens are computed one at a time, for which no kernel is fused.
    config = dataclasses.replace(model_config(found.meta), attention="xla")
    with kernels.matmul_precision(config):
        yield from generate.continuations(
            model_graph(config),
            config,
            jax.device_put(found.state.params),
            ids,
            named_key(seed, "sample"),
            n_slots=_TOKENS_PER_DISPATCH,
            n_symbols=stored_tokenizer(found.meta).vocab_size,
            **settings,
        )


def _check_ranges(
    num_samples: int, max_new_tokens: int, temperature: float, top_k: int, seed: int
) -> None:
    if num_samples < 1:
        raise UserError("--num_samples", num_samples, "must be ≥ 1")
    if max_new_tokens < 1:
        raise UserError("--max_new_tokens", max_new_tokens, "must be ≥ 1")
    if not (math.isfinite(temperature) and temperature >= 0):
        raise UserError("--temperature", temperature, "must be ≥ 0 and finite; 0 is greedy")
    if top_k < 0:
        raise UserError("--top_k", top_k, "must be ≥ 0; 0 keeps all")
    if not 0 <= seed < 2**32:
        raise UserError("--seed", seed, "must be an integer in [0, 2**32)")


def _prompt_text(prompt: str, prompt_file: str) -> str:
    if not prompt_file:
        return prompt
    if prompt:
        raise UserError("--prompt_file", prompt_file, "cannot be given together with --prompt")
    try:
        with open(prompt_file, "rb") as file:
            raw = file.read(_LARGEST_PROMPT_FILE + 1)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError("--prompt_file", prompt_file, f"cannot be read: {reason}") from error
    if len(raw) > _LARGEST_PROMPT_FILE:
        raise UserError("--prompt_file", prompt_file, "is larger than 1 MB")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError("--prompt_file", prompt_file, "is not UTF-8 text") from error


def _write(text: str) -> None:
    sys.stdout.write(printable(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()
