"""nanoGPT's flags and what they are here: hints for who types them, as in docs/from-nanogpt.md."""

from __future__ import annotations

from gptjax.config.knobs import KNOBS

# Of those whose value does not carry over as it is, by nanoGPT's name.
_OTHERS = {
    "batch_size": "--config.train.batch_size, which counts all sequences of an update",
    "lr_decay_iters": "--config.optim.lr_decay_iters",
    "decay_lr": "--config.optim.schedule=cosine or constant",
    "eval_iters": "--config.eval.iters with --config.eval.mode=random",
    "eval_only": "scripts/evaluate.py",
    "log_interval": "--config.log.interval",
    "always_save_checkpoint": "not needed: the best and the newest checkpoint are kept",
    "out_dir": "--config.out_dir",
    "init_from": "not needed to resume: run the same command again; see --config.init_from",
    "dataset": "--config.data.source=tiny_shakespeare, text:PATH or tokens:DIR",
    "device": "JAX_PLATFORMS=cpu or cuda, before the command",
    "compile": "not needed: gptjax always compiles",
    "backend": "--config.mesh.data, for several devices of one host",
    "wandb_log": "--config.log.wandb=true",
    "wandb_project": "--config.log.wandb_project",
    "wandb_run_name": "--config.log.wandb_run_name",
    "start": "--prompt, or --prompt_file for FILE:…",
}

COUNTERPARTS = _OTHERS | {
    knob.nanogpt: f"--config.{name}" for name, knob in KNOBS.items() if knob.nanogpt
}


def hint(argument: str) -> str:
    """What an argument that nanoGPT would take is called here; "" for any other."""
    flag, equals, _ = argument.partition("=")
    if not flag.startswith("-"):
        return f"Give it as --config {argument}." if argument.endswith(".py") else ""
    counterpart = COUNTERPARTS.get(flag.lstrip("-"))
    return f"nanoGPT's {flag} is here: {counterpart}." if counterpart else ""
