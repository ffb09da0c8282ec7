"""What a plan found, as a table: each figure with where it is from."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from gptjax.run.progress import count
from gptjax.speed.outlook import CHINCHILLA
from gptjax.speed.plan_record import Plan
from gptjax.speed.quantities import flops_words, long_duration, ratio, short_duration, size

# A figure, what it is, and where it is from.
Row = tuple[str, str, str]


def table(plan: Plan) -> Table:
    """The figures, each with where it is from."""
    made = Table(show_edge=False, pad_edge=False)
    made.add_column("", justify="right", no_wrap=True)
    made.add_column("")
    made.add_column("where from", overflow="fold")
    for rows in (_counts(plan), _memory(plan), _traffic(plan), _disk(plan), _time(plan)):
        for row in rows:
            made.add_row(*row)
        made.add_section()
    return made


def _counts(plan: Plan) -> Iterator[Row]:
    counts, data = plan.counts, plan.data
    yield count(counts.n_params), "parameters", f"of the model, {data.n_symbols:,} symbols"
    yield f"{counts.update_tokens:,}", "tokens an update", "train.batch_size x model.block_size"
    yield count(counts.tokens), "tokens in all", f"{counts.n_updates:,} updates"
    n_train = data.n_tokens["train"]
    if counts.epochs is not None:
        yield ratio(counts.epochs), "epochs", f"{n_train:,} train tokens; {data.source}"
    else:
        yield "?", "epochs", data.source
    yield (
        ratio(counts.tokens_per_param),
        "tokens a parameter",
        f"Chinchilla's best is about {CHINCHILLA}: Hoffmann et al. 2022",
    )
    yield flops_words(counts.update_flops), "an update", "XLA's count, as MFU has it"
    yield flops_words(counts.flops), "in all", "without evaluations"


def _memory(plan: Plan) -> Iterator[Row]:
    if not plan.simulated:
        return
    parts = plan.simulated.footprint
    analysis = "XLA's memory analysis of the compiled update"
    if plan.where.platform == "gpu" and not plan.where.is_here:
        analysis += ", a CPU in the card's place"
    yield size(parts.weights), "weights, each device", "their types and shapes"
    yield size(parts.optimizer), "optimizer", "its means and the step"
    yield size(parts.gradients), "gradients", "one of each weight, float32"
    yield (
        size(parts.activations),
        "activations, temporaries",
        f"{analysis}; {parts.n_micro} times {parts.micro_batch} sequences on each",
    )
    known = sum(plan.data.n_tokens.values())
    words = f"{known:,} tokens of {plan.data.bytes_per_token * 8} bits" if known else ""
    yield size(parts.data) if known else "?", "data", words or "not here yet"
    yield size(parts.windows), "where windows start", "of all updates of a call"
    limit = plan.where.memory_bytes
    of = f"of {size(limit)}: {plan.where.memory_source}" if limit else plan.where.memory_source
    yield size(parts.total), "together, each device", of
    if plan.measured and plan.measured.peak_bytes:
        yield size(plan.measured.peak_bytes), "the process at its peak", "measured here"


def _traffic(plan: Plan) -> Iterator[Row]:
    for each in plan.simulated.traffic if plan.simulated else ():
        yield (
            size(each.sent_bytes),
            f"{each.kind}, sent by each",
            f"an update: {each.n_calls} of {size(each.n_bytes)} in all, read from XLA's program",
        )


def _disk(plan: Plan) -> Iterator[Row]:
    is_measured = plan.measured and plan.measured.checkpoint_bytes
    words = "written here, and removed" if is_measured else "weights and optimizer"
    yield size(plan.checkpoint_bytes), "a checkpoint", words
    n, counts = plan.counts.n_checkpoints, plan.counts
    yield f"{n}", "kept at once", "checkpoint.keep newest, the best, the one being written"
    yield size(plan.disk_bytes), "of disk", f"{size(plan.free_bytes)} free for out_dir"
    yield f"{counts.n_saves:,}", "saves at most", "checkpoint.interval, and each best evaluation"


def _time(plan: Plan) -> Iterator[Row]:
    times, counts = plan.times, plan.counts
    yield short_duration(times.update), "an update", times.source
    yield long_duration(times.updates), "updates", f"{counts.n_updates:,} of them"
    how = "measured" if plan.measured else "a third of the arithmetic, forwards alone"
    each = short_duration(times.evaluations / counts.n_evaluations)
    words = f"{counts.n_evaluations:,} of {each}, {counts.evaluation_tokens:,} tokens each; {how}"
    if not counts.evaluation_tokens:
        words = f"{counts.n_evaluations:,}, of unknown length"
    yield long_duration(times.evaluations), "evaluations", words
    each = short_duration(times.saves / counts.n_saves)
    how = "measured in a temporary folder" if times.saves and plan.measured else "assumed: 1 GB/s"
    if plan.measured and not times.saves:
        how = "not measured, more than 1 GiB each"
    words = f"{counts.n_saves:,} of {each}; {how}"
    yield long_duration(times.saves), "saves", words
    if plan.measured:
        yield short_duration(times.start), "start", "measured: Python, JAX, compiling"
    yield long_duration(times.total), "together", "nothing else at work, and no stop"
    if plan.dollars_per_hour:
        n = plan.where.n_devices
        price = f"{n} x {plan.dollars_per_hour:g} dollars an hour"
        yield f"{plan.dollars:,.2f}", "dollars", price
