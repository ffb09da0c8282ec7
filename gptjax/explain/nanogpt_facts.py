"""Facts under gptjax's names from what is known of nanoGPT's settings."""

from __future__ import annotations

from collections.abc import Mapping

from gptjax.config.knobs import KNOBS
from gptjax.device.formula import formula_flops
from gptjax.explain.nanogpt_config import BATCH, DEFAULT, LOG, Config
from gptjax.explain.series import Fact

# Knobs of the same meaning, by nanoGPT's name; dtype depends on the device as well.
_KNOBS = {knob.nanogpt: name for name, knob in KNOBS.items() if knob.nanogpt and name != "dtype"}

# What nanoGPT has no setting for: there is one way.
_FIXED = {name: knob.default for name, knob in KNOBS.items() if knob.nanogpt is None}
_TRAIN_PY = "nanoGPT's train.py"

# Of data/shakespeare_char, which is Tiny Shakespeare with its 65 characters, 90 % of it to train.
_SHAKESPEARE = ("shakespeare_char", 65)
_SHAKESPEARE_TRAIN_TOKENS = 1_003_854  # Its prepare.py prints it.


def facts_of(config: Config, values: Mapping[str, Fact]) -> tuple[dict[str, Fact], list[str]]:
    """All that follows from a log's header, and what is to be said of how it is known.

    `values` are the config's, by nanoGPT's names.
    """
    notes: list[str] = []
    facts = {name: values[flag] for flag, name in _KNOBS.items() if flag in values}
    facts["program"] = Fact("nanoGPT", LOG)
    facts |= _schedule(values)
    facts |= _precision(values)
    facts |= _corpus(config, values)
    facts |= _batch(config, values, notes)
    facts |= _parameters(config, values, notes)
    facts |= _flops(facts)
    if "eval_iters" in values:
        facts["eval.iters"] = values["eval_iters"]
        facts["eval.mode"] = facts["loss_estimate"] = Fact("random", _TRAIN_PY)
    if "compile" in values:
        facts["compiled"] = values["compile"]
    if "pretrained" in config.headers:
        facts["parent"] = Fact(config.headers["pretrained"], LOG)
    if any(fact.how == DEFAULT for fact in values.values()):
        facts |= {name: Fact(value, _TRAIN_PY) for name, value in _FIXED.items()}
        facts["seed"] = Fact(1337, f"{_TRAIN_PY}, which has it fixed")
    return facts, notes


def _schedule(values: Mapping[str, Fact]) -> dict[str, Fact]:
    """Without a decay nanoGPT has no warmup either; gptjax writes 0 where both horizons are one."""
    decays, horizon = values.get("decay_lr"), values.get("lr_decay_iters")
    if decays is not None and not decays.value:
        return {
            "optim.schedule": Fact("constant", "decay_lr=False"),
            "optim.warmup_iters": Fact(0, "decay_lr=False"),
        }
    facts = {} if decays is None else {"optim.schedule": Fact("cosine", decays.how)}
    if horizon is not None:
        end = values.get("max_iters")
        is_one = end is not None and horizon.value == end.value
        facts["optim.lr_decay_iters"] = Fact(0, "as max_iters") if is_one else horizon
    return facts


def _precision(values: Mapping[str, Fact]) -> dict[str, Fact]:
    """autocast is used on CUDA only; what dtype is there by default depends on the card."""
    facts, device, dtype = {}, values.get("device"), values.get("dtype")
    if device is not None:
        facts["device"] = device
        if "cuda" not in device.value:
            dtype = Fact("float32", f"nanoGPT computes in it on {device.value}")
    if dtype is not None:
        facts["model.dtype"] = dtype
        facts["model.param_dtype"] = Fact("float32", _TRAIN_PY)
        facts["precision"] = Fact(f"float32 parameters, {dtype.value} compute", dtype.how)
    return facts


def _corpus(config: Config, values: Mapping[str, Fact]) -> dict[str, Fact]:
    facts, vocab_size, dataset = {}, config.vocab_size, values.get("dataset")
    if vocab_size is not None:
        facts["vocab_size"] = Fact(vocab_size, LOG)
    if dataset is not None and (dataset.value, vocab_size) == _SHAKESPEARE:
        how = f"nanoGPT's {dataset.value}, by its name"
        facts["corpus"] = facts["data.source"] = Fact("tiny_shakespeare", how)
        facts["train_tokens"] = Fact(_SHAKESPEARE_TRAIN_TOKENS, how)
    elif dataset is not None:
        facts["corpus"] = dataset
    return facts


def _batch(config: Config, values: Mapping[str, Fact], notes: list[str]) -> dict[str, Fact]:
    """Sequences and tokens of an update, over all processes."""
    facts, tokens, context = {}, config.tokens_per_update, values.get("block_size")
    parts = [values[name] for name in BATCH[:2] if name in values]
    n_sequences = None
    if len(parts) == 2:
        n_sequences = parts[0].value * parts[1].value
        facts["train.batch_size"] = Fact(n_sequences, " × ".join(BATCH[:2]))
    if tokens is not None:
        facts["tokens_per_update"] = Fact(tokens, LOG)
        if context is not None and context.value and tokens % context.value == 0:
            printed = tokens // context.value
            if n_sequences and printed != n_sequences:
                notes.append(
                    f"an update has {printed:,} sequences by the printed tokens, not the "
                    f"{n_sequences:,} of {' × '.join(BATCH[:2])}"
                )
                if printed % n_sequences == 0:
                    how = "printed tokens of an update over those of one process"
                    facts["n_devices"] = Fact(printed // n_sequences, how)
            if printed != n_sequences:
                facts["train.batch_size"] = Fact(printed, "tokens of an update over block_size")
    elif n_sequences is not None and context is not None:
        facts["tokens_per_update"] = Fact(n_sequences * context.value, " × ".join(BATCH))
    return facts


def _parameters(config: Config, values: Mapping[str, Fact], notes: list[str]) -> dict[str, Fact]:
    """Without position embeddings: by formula, else counted, else as printed."""
    n_params, counted = config.formula_params(values), config.counted_params(values)
    printed = config.printed_params
    if n_params is not None and config.agrees(n_params, values):
        return {"parameters": Fact(n_params, "formula, of shape and vocabulary")}
    if n_params is not None:
        notes.append(f"its settings make {n_params:,} parameters, its log counts others")
    if counted is not None and counted > 0 and config.agrees(counted, values):
        return {"parameters": Fact(counted, "decayed and not, without block_size × n_embd")}
    if printed is not None:
        return {"parameters": Fact(printed, "log, rounded to 10,000")}
    return {}


def _flops(facts: Mapping[str, Fact]) -> dict[str, Fact]:
    names = "model.n_layer model.n_embd model.block_size parameters tokens_per_update".split()
    if any(name not in facts for name in names):
        return {}
    n_layer, n_embd, block_size, n_params, n_tokens = (facts[name].value for name in names)
    flops = formula_flops(
        n_layer=n_layer, n_embd=n_embd, block_size=block_size, n_params=n_params, n_tokens=n_tokens
    )
    return {"flops_per_update": Fact(flops, "formula, (6N + 12·L·H·Q·T) a token")}
