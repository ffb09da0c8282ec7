"""What a run will take: counts, time, disk and cost, from what was measured or assumed of it."""

from __future__ import annotations

import dataclasses

import ml_collections

from gptjax.config.config import model_config
from gptjax.model.gpt import expected_parameters
from gptjax.run.boundaries import n_checkpoints, n_evaluations, n_saves
from gptjax.run.costs import Costs
from gptjax.run.evaluator import windows_by_split
from gptjax.run.planned_data import PlannedData

# Tokens a parameter at which a model's size is best for its compute, about.
# Source: Hoffmann et al. 2022, Training Compute-Optimal Large Language Models, table 3.
CHINCHILLA = 20

# Of a device that updates were not timed on. Large models usually reach 30 to 50 %; what reaches
# a disk or a network file system is taken for a gigabyte a second.
ASSUMED_MFU = 0.4
ASSUMED_SAVE_BYTES_PER_S = 1e9

# An evaluation computes the first of the three passes of an update: forwards, then the gradients
# of what goes in and of the weights. Source: Chowdhery et al. 2022, PaLM, appendix B.
_EVALUATION_SHARE = 1 / 3


@dataclasses.dataclass(frozen=True)
class Counts:
    """What a config amounts to, wherever it runs.

    Attributes:
      n_params: all weights.
      n_updates: in all.
      update_tokens: of an update.
      tokens: of all updates.
      epochs: how often the training split is read; None: its length is unknown.
      tokens_per_param: Chinchilla's ratio.
      update_flops: of an update.
      flops: of all updates.
      n_evaluations: with those at the start and the end.
      evaluation_tokens: read by one of them; 0: unknown.
      n_saves: most checkpoints written.
      n_checkpoints: most of them on the disk at once.
    """

    n_params: int
    n_updates: int
    update_tokens: int
    tokens: int
    epochs: float | None
    tokens_per_param: float
    update_flops: float
    flops: float
    n_evaluations: int
    evaluation_tokens: int
    n_saves: int
    n_checkpoints: int


def counts(config: ml_collections.ConfigDict, data: PlannedData, costs: Costs) -> Counts:
    """What a config amounts to on a corpus."""
    n_params = expected_parameters(model_config(config, data.n_symbols))
    n_updates, block_size = config.train.max_iters, config.model.block_size
    update_tokens = config.train.batch_size * block_size
    n_train = data.n_tokens["train"]
    return Counts(
        n_params=n_params,
        n_updates=n_updates,
        update_tokens=update_tokens,
        tokens=n_updates * update_tokens,
        epochs=n_updates * update_tokens / n_train if n_train else None,
        tokens_per_param=n_updates * update_tokens / n_params,
        update_flops=costs.flops,
        flops=n_updates * costs.flops,
        n_evaluations=n_evaluations(config),
        evaluation_tokens=_evaluation_tokens(config, data),
        n_saves=n_saves(config),
        n_checkpoints=n_checkpoints(config, n_updates),
    )


def _evaluation_tokens(config: ml_collections.ConfigDict, data: PlannedData) -> int:
    block_size, evaluation = config.model.block_size, config.eval
    if evaluation.mode == "sweep" and not data.n_tokens["val"]:
        return 2 * evaluation.max_tokens
    if min(data.n_tokens.values()) <= block_size and evaluation.mode == "sweep":
        return 0
    if evaluation.mode == "random":
        return 2 * evaluation.iters * config.train.batch_size * block_size
    windows = windows_by_split(config, data.n_tokens, step=0)
    return block_size * sum(len(each_W) for each_W in windows.values())


@dataclasses.dataclass(frozen=True)
class Times:
    """Seconds of a whole run, by part; `source` is where an update's time is from."""

    start: float
    update: float
    updates: float
    evaluations: float
    saves: float
    source: str

    @property
    def total(self) -> float:
        """All of them together."""
        return self.start + self.updates + self.evaluations + self.saves


def measured_times(
    counts: Counts,
    *,
    start: float,
    update: float,
    evaluation: float,
    save: float,
    source: str,
) -> Times:
    """Those of a run whose parts were timed, seconds each."""
    return Times(
        start,
        update,
        counts.n_updates * update,
        counts.n_evaluations * evaluation,
        counts.n_saves * save,
        source,
    )


def assumed_times(
    counts: Counts, *, flops_per_s: float, mfu: float, checkpoint_bytes: int, source: str
) -> Times:
    """Those of a run on devices of which only the peak is known, at an assumed MFU."""
    rate = flops_per_s * mfu
    update = counts.update_flops / rate
    share = _EVALUATION_SHARE * counts.evaluation_tokens / counts.update_tokens
    save = checkpoint_bytes / ASSUMED_SAVE_BYTES_PER_S
    return measured_times(
        counts, start=0.0, update=update, evaluation=share * update, save=save, source=source
    )


def dollars(times: Times, *, n_devices: int, dollars_per_hour: float) -> float:
    """What a run costs at a price for each device."""
    return times.total / 3600 * n_devices * dollars_per_hour
