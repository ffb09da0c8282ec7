"""What a run says before its first update: on what, of what, and what it will cost."""

from __future__ import annotations

import jax
import ml_collections

import gptjax
from gptjax.data.bpe import BpeTokenizer
from gptjax.data.token_files import TokenFiles
from gptjax.device.devices import lacks_bfloat16
from gptjax.device.kernels import AttentionChoice
from gptjax.device.peak import Peak
from gptjax.run.costs import Costs
from gptjax.run.inputs import Inputs
from gptjax.run.progress import Notice, count
from gptjax.run.records import precision


def of_devices(devices: list[jax.Device], why: str) -> list[Notice]:
    """Where it computes, and why there."""
    device = devices[0]
    name = f"{len(devices)} x {device.platform} ({device.device_kind})"
    return [Notice(f"gptjax {gptjax.__version__}, jax {jax.__version__}, {name}: {why}")]


def of_corpus(inputs: Inputs) -> list[Notice]:
    """What it is trained on."""
    corpus, splits, vocab_size = inputs.corpus, inputs.splits, inputs.tokenizer.vocab_size
    lines = []
    if corpus.fallback_reason:
        words = "training on the SYNTHETIC corpus instead. Its losses cannot be compared with "
        lines.append(Notice(f"{corpus.fallback_reason}.", "alarm"))
        lines.append(Notice(f"{words}Shakespeare's.", "alarm"))
    words = (
        f"corpus {corpus.name}: {corpus.size}, {vocab_size} symbols; "
        f"{len(splits.train):,} train and {len(splits.val):,} val tokens"
    )
    lines.append(Notice(words))
    if isinstance(inputs.tokenizer, BpeTokenizer):
        words = f"one of val stands for {inputs.val_bytes_per_token:.2f} bytes"
        lines.append(Notice(f"tokens: byte-level BPE; {words}"))
    if vocab_size == 1:
        words = "the vocabulary has 1 symbol; there is nothing to learn"
        lines.append(Notice(words, "warning"))
    if (
        isinstance(corpus, TokenFiles)
        and corpus.tokenizer is None
        and 2 * corpus.highest_id < corpus.vocab_size
    ):
        words = (
            f"the highest id is {corpus.highest_id:,}, far below the vocabulary's "
            f"{corpus.vocab_size:,}; check vocab_size in meta.json"
        )
        lines.append(Notice(words, "warning"))
    if splits.floor_nats is not None:
        floor = f"floor: no model can have a val loss below {splits.floor_nats:.4f}"
        lines.append(Notice(floor))
    return lines


def of_model(
    config: ml_collections.ConfigDict, costs: Costs, attention: AttentionChoice, device: jax.Device
) -> list[Notice]:
    """What is trained, and what of its config may not be meant."""
    lines = [Notice(f"model: {count(costs.n_params)} parameters; {precision(config)}")]
    if device.platform != "cpu":
        kinds = f"{attention.updates}, evaluating {attention.evaluations}"
        lines.append(Notice(f"attention: {kinds}: {attention.why}"))
    warmup, max_iters = config.optim.warmup_iters, config.train.max_iters
    if 0 < max_iters <= warmup:
        highest = config.optim.learning_rate * max_iters / (warmup + 1)
        words = (
            f"the run ends while it warms up: {max_iters} updates, warmup_iters {warmup}; "
            f"the learning rate gets to {highest:.3g} of {config.optim.learning_rate:.3g}"
        )
        lines.append(Notice(words, "warning"))
    if config.model.dtype == "bfloat16" and lacks_bfloat16(device):
        words = f"this {device.platform} emulates bfloat16; float32 is faster here"
        lines.append(Notice(words, "warning"))
    return lines


def of_costs(costs: Costs, peak: Peak) -> list[Notice]:
    """What an update costs, and what the devices could do."""
    words = (
        f"update: {costs.flops / 1e9:.3f} GFLOP by XLA's count, "
        f"{costs.formula_flops / 1e9:.3f} by 6N+12LHQT "
        f"(ratio {costs.flops / costs.formula_flops:.3f}); "
        f"peak {peak.flops_per_s / 1e9:,.0f} GFLOP/s, {peak.source}"
    )
    return [Notice(words)]
