"""What a run says at its end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gptjax.device.peak import Peak
from gptjax.run.evaluator import Loss
from gptjax.run.ledger import KINDS
from gptjax.run.progress import duration


def time_words(ledger: Mapping[str, Any]) -> list[str]:
    """Where the time went and what an update took, of a Ledger as JSON."""
    parts = ", ".join(f"{kind} {ledger['seconds'][kind]:.1f} s" for kind in KINDS)
    lines = [
        f"wall {duration(ledger['wall_seconds'])}: {parts}",
        f"an update took {ledger['step_ms_median']:.1f} ms (median; p95 "
        f"{ledger['step_ms_p95']:.1f}), without evaluation, saving, compiling",
    ]
    if shares := ledger.get("eval_seconds_of_hosts"):
        slowest, fastest = max(shares, key=shares.__getitem__), min(shares.values())
        lines.append(
            f"slowest of {len(shares)}: {slowest}, {shares[slowest] / max(fastest, 1e-9):.2f} "
            "times the time of the fastest for its share of the evaluations"
        )
    return lines


def mfu_words(flops_per_s: float, peak: Peak, *, first: Peak) -> str:
    """The MFU of all updates over the peak that is known now; `first` was known at the start."""
    words = f"MFU {flops_per_s / peak.flops_per_s:.0%} on average, of {_rate(peak)}, {peak.source}"
    if peak.flops_per_s > first.flops_per_s:
        words += f"; at the start it was taken for {_rate(first)}"
    return words


def best_words(best: Mapping[str, Any], last_val: Loss | None, corpus: str) -> str:
    """The best val, and whether it has risen since."""
    words = f"best val {best['val_nats']:.4f} at step {best['step']} on {corpus}"
    # Two standard errors worse than the best is more than chance.
    if last_val and last_val.mean > best["val_nats"] + 2 * last_val.sem:
        words += f"; overfit since then: {last_val.mean:.4f} now"
    return words


def next_words(reason: str, step: int, out_dir: str) -> str:
    """What can be done with the run from here on."""
    if reason == "finished":
        return f"sample from it: python scripts/sample.py --out_dir {out_dir}"
    return f"stopped by {reason} at step {step}, checkpoint saved; run the same command to resume"


def not_finite_words(
    what: str, metrics: Mapping[str, float], learning_rate: float, saved_step: int
) -> str:
    """What to say of a number that is not finite; `metrics` are the last update's, if any."""
    words = what
    if metrics:
        words += (
            f": loss {metrics['loss']:.5g}, gradient norm "
            f"{metrics['grad_norm']:.5g}, learning rate {learning_rate:.3g}"
        )
    good = f"the last good checkpoint is step {saved_step}"
    if saved_step < 0:
        good = "there is no checkpoint yet"
    return f"{words}; {good}. Try a lower --config.optim.learning_rate"


def _rate(peak: Peak) -> str:
    return f"{peak.flops_per_s / 1e9:,.0f} GFLOP/s"
