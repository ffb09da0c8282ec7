"""Writing text with a trained model, from its run directory alone."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.text import Text

from gptjax.data.tokenizer import Tokenizer
from gptjax.device import kernels
from gptjax.device.devices import available_devices
from gptjax.explain import side_by_side
from gptjax.explain.side_by_side import Written
from gptjax.run.checkpoint import Checkpoint
from gptjax.run.continuation import Continuation
from gptjax.run.metadata import model_config, stored_tokenizer
from gptjax.run.reader import read_checkpoint, run_and_step
from gptjax.run.scores import scores
from gptjax.system import cache
from gptjax.system.command import run_script
from gptjax.system.errors import UserError
from gptjax.system.output import printable, waiting

# Tokens per dispatch: text appears this many at a time.
_TOKENS_PER_DISPATCH = 32

_LARGEST_PROMPT_FILE = 1_000_000  # bytes


def sample(*out_dirs: str, step: str, prompt: str, prompt_file: str, **settings: Any) -> None:
    """Prints continuations of a prompt: a run's as they are written, several runs' side by side.

    An empty prompt starts from the tokenizer's own, a newline where it has one. `settings` are
    num_samples, max_new_tokens, temperature, top_k, seed and stride: a full window moves on by
    `stride` tokens at once; 1 is nanoGPT's way, more is quicker.

    Raises:
      UserError: for a number out of range, a character a model does not know, or no checkpoint.
    """
    _check_ranges(**settings)
    text = _prompt_text(prompt, prompt_file)
    labels = side_by_side.labels_of(out_dirs) if len(out_dirs) > 1 else []
    prepare()
    all_found = [read_checkpoint(*run_and_step(out_dir, step)) for out_dir in out_dirs]
    tokenizers = [stored_tokenizer(found.meta) for found in all_found]
    text = text or tokenizers[0].default_prompt
    if len(out_dirs) == 1:
        print_samples(text, _continuations(all_found[0], text, **settings), tokenizers[0])
        return
    for label, tokenizer in zip(labels, tokenizers, strict=True):
        tokenizer.encode(text, what=f"prompt, for {label}")
    side_by_side.print_side_by_side(labels, _judged(labels, all_found, text, **settings))


def _judged(
    labels: Sequence[str], all_found: Sequence[Checkpoint], text: str, **settings: Any
) -> list[list[Written]]:
    """Row after row a continuation of each run, with what every run's model makes of it."""
    console = Console(stderr=True, force_terminal=sys.stderr.isatty())  # Elsewhere it is silent.
    texts: list[str] = []
    for label, found in zip(labels, all_found, strict=True):
        with console.status(Text(printable(f"{label} writes")), spinner="dots"):
            texts += _continued(found, text, **settings)
    with console.status("all of it is read by every model"):
        scores_RN = [scores(found, text, texts) for found in all_found]
    written = [
        Written(text + more, list(judgements))
        for more, *judgements in zip(texts, *scores_RN, strict=True)
    ]
    n_rows = settings["num_samples"]
    return [written[row::n_rows] for row in range(n_rows)]


def prepare() -> None:
    """What comes before the first checkpoint is read."""
    cache.keep_compiled_programs()
    available_devices()  # Asked for here, a backend that is missing is a clear error.


def sampled_texts(
    found: Checkpoint, *, prompt: str, prompt_file: str, **settings: Any
) -> list[str]:
    """The texts that `sample` prints of a checkpoint, each with its prompt; raises the same."""
    _check_ranges(**settings)
    text = _prompt_text(prompt, prompt_file) or stored_tokenizer(found.meta).default_prompt
    return [text + more for more in _continued(found, text, **settings)]


def _continued(found: Checkpoint, text: str, **settings: Any) -> list[str]:
    """What follows a prompt, of each sample."""
    tokens_BT = np.concatenate(list(_continuations(found, text, **settings)), axis=1)
    return [stored_tokenizer(found.meta).decode(tokens_T) for tokens_T in tokens_BT]


def _continuations(
    found: Checkpoint, text: str, *, stride: int, **settings: Any
) -> Iterator[np.ndarray]:
    """What `generated_tokens` yields for a prompt, after a look at the prompt and the stride."""
    ids = stored_tokenizer(found.meta).encode(text, what="prompt")
    _check_window(found, n_prompt=len(ids), stride=stride)
    return generated_tokens(found, ids, stride=stride, **settings)


def print_samples(text: str, chunks: Iterable[np.ndarray], tokenizer: Tokenizer) -> None:
    """Prints a prompt with each sample's continuation, the first one as its tokens come."""
    chunks = iter(chunks)
    with waiting("getting ready"):
        first = next(chunks)
    written: list[np.ndarray] = []

    def of_first_sample() -> Iterator[np.ndarray]:
        for tokens_BK in itertools.chain([first], chunks):
            written.append(tokens_BK)
            yield tokens_BK[0]

    shown, held = _split_at_open_line_end(text)
    _write(shown)
    for more in tokenizer.decode_stream(of_first_sample()):
        shown, held = _split_at_open_line_end(held + more)
        _write(shown)
    _write(held + "\n---------------\n")
    tokens_BT = np.concatenate(written, axis=1)
    for tokens_T in tokens_BT[1:]:
        _write(text + tokenizer.decode(tokens_T) + "\n---------------\n")


def _split_at_open_line_end(text: str) -> tuple[str, str]:
    """The text, and apart from it a last carriage return: what follows tells if it ends a line."""
    return (text[:-1], "\r") if text.endswith("\r") else (text, "")


def generated_tokens(
    found: Checkpoint, ids: np.ndarray, *, num_samples: int, top_k: int, **settings: Any
) -> Iterator[np.ndarray]:
    """Yields the next few tokens of every sample, axes B and up to _TOKENS_PER_DISPATCH."""
    device = jax.devices()[0]
    # Most tokens are computed one at a time, for which no kernel is fused.
    model = kernels.with_attention(model_config(found.meta), "xla", device)
    continuation = Continuation(
        model,
        device,
        num_samples=num_samples,
        top_k=top_k,
        n_slots=_TOKENS_PER_DISPATCH,
        n_symbols=stored_tokenizer(found.meta).vocab_size,
    )
    with kernels.matmul_precision(model):
        yield from continuation.tokens(jax.device_put(found.state.params, device), ids, **settings)


def _check_window(found: Checkpoint, *, n_prompt: int, stride: int) -> None:
    """Checks a stride against the model, and says what of the model the user may not expect."""
    block_size, corpus = model_config(found.meta).block_size, found.meta["corpus"]
    most = max(1, block_size - 1)
    if not 1 <= stride <= most:
        raise UserError("--stride", stride, f"must be from 1 to {most}, block_size - 1")
    if n_prompt > block_size:
        words = f"the prompt has {n_prompt} tokens; the model sees the last {block_size}"
        print(f"gptjax: {words}", file=sys.stderr)
    if corpus["fallback_reason"]:
        words = f"trained on the {corpus['name']} corpus, not on {corpus['requested']}"
        print(f"gptjax: this model was {words}", file=sys.stderr)


def _check_ranges(
    *,
    num_samples: int,
    max_new_tokens: int,
    temperature: float,
    top_k: int,
    seed: int,
    stride: int,
) -> None:
    """Raises UserError for a number out of range; `stride` is for the model to judge."""
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
        with open(
            0 if prompt_file == "-" else prompt_file, "rb", closefd=prompt_file != "-"
        ) as file:
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


if __name__ == "__main__":
    run_script(__file__)
