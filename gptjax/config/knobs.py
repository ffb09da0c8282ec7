"""Every knob of a run, in the order that --help and config.json list them."""

from __future__ import annotations

from typing import Any

from gptjax.config.knob import (
    Knob,
    at_least,
    between,
    fraction,
    one_of,
    path,
    rate,
    share,
    tokenizer,
)

_EXPERIMENT: dict[str, Any] = {"on_resume": "refused"}  # names it; a fork may have another
_OURS: dict[str, Any] = {**_EXPERIMENT, "nanogpt": None}
_SHAPE: dict[str, Any] = {"on_resume": "refused", "fixed_in_fork": True}
_MACHINE: dict[str, Any] = {"on_resume": "machine"}
_PLACE: dict[str, Any] = {"on_resume": "place", "in_digest": False}
_WATCHING: dict[str, Any] = {"in_digest": False}  # or cutting a run into dispatches

_DTYPES = ("float32", "bfloat16")

KNOBS: dict[str, Knob] = {
    "seed": Knob(
        1337,
        "the one seed: weights, batches and dropout are drawn from it",
        "must be an integer in [0, 2**32)",
        lambda value: 0 <= value < 2**32,
        **_EXPERIMENT,
    ),
    "out_dir": path("out/run", "the run directory", **_PLACE),
    "init_from": path(
        "auto",
        "auto: continue the run in out_dir, else start; scratch: start, refuse a used directory; "
        "a path: fork the run or checkpoint there into a new out_dir; gpt2:PATH or gpt2:HUB_ID: "
        "start with a GPT-2's weights",
        **_PLACE,
    ),
    "data.source": path(
        "tiny_shakespeare",
        "tiny_shakespeare, text:PATH (a UTF-8 file), tfds:NAME, "
        "tokens:DIR (train.bin and val.bin, or shards) or synthetic",
        on_resume="content",
    ),
    "data.fallback": one_of(
        "synthetic", ("synthetic", ""), 'used when the source cannot be had; "" makes that an error'
    ),
    "data.tokenizer": tokenizer(
        "char",
        "what a token of a text is. char: a character; bpe:N: of N that a byte-level BPE learns "
        "of the text; gpt2: GPT-2's; PATH: of a folder's vocab.json and merges.txt (extra: bpe)",
        **_OURS,
    ),
    "data.val_fraction": share(
        0.1,
        "share of a text's characters, at its end, for validation; tokens:DIR has its val.bin",
        **_EXPERIMENT,
    ),
    "data.order": one_of("random", ("random", "epoch"), "epoch: none twice before all", **_OURS),
    "model.n_layer": at_least(4, 1, "transformer blocks", **_SHAPE, nanogpt="n_layer"),
    "model.n_head": at_least(4, 1, "attention heads; divides n_embd", **_SHAPE, nanogpt="n_head"),
    "model.n_embd": at_least(128, 1, "width of the residual stream", **_SHAPE, nanogpt="n_embd"),
    "model.block_size": at_least(64, 1, "context length in tokens", **_SHAPE, nanogpt="block_size"),
    "model.dropout": fraction(
        0.0, "probability of dropping a value while training", **_EXPERIMENT, nanogpt="dropout"
    ),
    "model.dropout_generator": one_of(
        "threefry",
        ("threefry", "philox"),
        "what draws dropout's masks; threefry is faster on a CPU",
        **_EXPERIMENT,
    ),
    "model.bias": Knob(False, "biases in Linear and LayerNorm", **_SHAPE, nanogpt="bias"),
    "model.dtype": one_of(
        "float32", _DTYPES, "what matrix products are computed in", **_EXPERIMENT, nanogpt="dtype"
    ),
    "model.param_dtype": one_of("float32", _DTYPES, "what parameters are held in", **_SHAPE),
    "model.matmul_precision": one_of(
        "default",
        ("default", "highest"),
        "of float32 products; default: as the device has it, TF32 on NVIDIA cards; highest: full",
    ),
    "model.norm": one_of(
        "layernorm",
        ("layernorm", "rmsnorm"),
        "rmsnorm: no mean, no weights; embeddings as well",
        **_SHAPE,
        nanogpt=None,
    ),
    "model.position": one_of(
        "learned",
        ("learned", "rotary"),
        "learned: added to embeddings; rotary: turns q and k",
        **_SHAPE,
        nanogpt=None,
    ),
    "model.mlp": one_of(
        "gelu",
        ("gelu", "gelu_tanh", "relu2"),
        "gelu: the exact one, nanoGPT's; gelu_tanh: GPT-2's; relu2: ReLU squared",
        **_OURS,
    ),
    "model.qk_norm": Knob(False, "RMS-normalise each head's queries and keys", **_OURS),
    "model.tie_embeddings": Knob(
        True, "the head is the token embedding, transposed", **_SHAPE, nanogpt=None
    ),
    "model.token_shift": Knob(
        False, "half of what a block reads of each token is the token before's", **_OURS
    ),
    "model.followers": between(
        0, 0, 8, "longest context whose followers are counted; 0: none", **_SHAPE, nanogpt=None
    ),
    "model.follower_rows": between(32_768, 1, 2**20, "of a length", **_SHAPE, nanogpt=None),
    "model.attention": one_of(
        "auto",
        ("auto", "xla", "cudnn"),
        "cudnn: its fused kernel, for bfloat16 on NVIDIA cards where nothing is dropped out; auto: "
        "if it works",
    ),
    "model.attention_rows": at_least(
        0, 0, "queries that attend at once; 0: all on a GPU, up to 64 on a CPU; same results"
    ),
    "model.remat": Knob(
        False, "compute what is inside a block anew for its gradient: less memory, more time"
    ),
    "model.scan_layers": Knob(
        False, "compile one block for all, which run in a loop; same results, slower on a CPU"
    ),
    "model.zero_residual": Knob(False, "start with blocks that add nothing to the stream", **_OURS),
    "model.vocab_multiple": between(
        1,
        1,
        1024,
        "the vocabulary is padded up to a multiple of this many symbols; padding ids "
        "are never sampled",
        **_SHAPE,
    ),
    "optim.name": one_of(
        "adamw",
        ("adamw", "muon"),
        "muon: for the blocks' matrices, AdamW for the rest",
        **_SHAPE,
        nanogpt=None,
    ),
    "optim.muon_learning_rate": rate(0.02, "Muon's peak rate; it follows learning_rate's shape"),
    "optim.muon_momentum": fraction(0.95, "Muon's decay of the mean gradient"),
    "optim.learning_rate": rate(1e-3, "peak learning rate, per update", nanogpt="learning_rate"),
    "optim.min_lr": rate(
        1e-4, "learning rate at lr_decay_iters and after, per update", nanogpt="min_lr"
    ),
    "optim.schedule": one_of(
        "cosine",
        ("cosine", "constant", "linear"),
        "after the warmup; linear: constant, then a straight line over decay_share of all updates",
    ),
    "optim.decay_share": Knob(
        0.6,
        "share of the updates over which the linear schedule falls",
        "must be in (0, 1]",
        lambda value: 0 < value <= 1,
    ),
    "optim.warmup_iters": at_least(100, 0, "updates of linear warmup", nanogpt="warmup_iters"),
    "optim.lr_decay_iters": at_least(0, 0, "updates until min_lr; 0: train.max_iters"),
    "optim.beta1": fraction(0.9, "AdamW's decay of the mean gradient", nanogpt="beta1"),
    "optim.beta2": fraction(0.99, "AdamW's decay of the mean squared gradient", nanogpt="beta2"),
    "optim.weight_decay": rate(0.1, "decoupled decay of ≥ 2-axes tensors", nanogpt="weight_decay"),
    "optim.grad_clip": rate(1.0, "largest global gradient norm; 0: off", nanogpt="grad_clip"),
    "optim.master_weights": Knob(
        True, "with bfloat16 parameters, keep float32 copies that the optimizer updates", **_SHAPE
    ),
    "train.max_iters": at_least(
        2000, 0, "updates in all; 0: evaluate and end", nanogpt="max_iters"
    ),
    "train.batch_size": at_least(
        12, 1, "sequences per update, over all micro-batches", **_EXPERIMENT
    ),
    "train.grad_accum_steps": at_least(
        1,
        1,
        "micro-batches an update is made of",
        **_EXPERIMENT,
        nanogpt="gradient_accumulation_steps",
    ),
    "train.tokens_at_once": at_least(
        0,
        0,
        "most tokens of a micro-batch on each device, which is cut further if it has more; "
        "0: 2,048 on a CPU, no limit on a GPU",
    ),
    "train.updates_per_dispatch": between(
        0,
        0,
        10_000,
        "most updates per call of the compiled step; 0: about a second's worth",
        **_WATCHING,
    ),
    "eval.interval": at_least(
        250, 1, "updates between evaluations", **_WATCHING, nanogpt="eval_interval"
    ),
    "eval.mode": one_of(
        "sweep",
        ("sweep", "random"),
        "sweep: fixed windows; random: nanoGPT's random batches",
        **_WATCHING,
    ),
    "eval.iters": between(
        200, 1, 1_000_000, "batches per estimate when eval.mode is random", **_WATCHING
    ),
    "eval.max_tokens": at_least(0, 0, "tokens per split in a sweep; 0: all of val's", **_WATCHING),
    "checkpoint.interval": at_least(250, 1, "updates between checkpoints", **_WATCHING),
    "checkpoint.keep": at_least(2, 1, "newest checkpoints kept, besides the best", **_WATCHING),
    "log.interval": at_least(10, 1, "updates between lines of metrics.jsonl", **_WATCHING),
    "log.tensorboard": Knob(
        False, "write TensorBoard event files as well (extra: tensorboard)", **_WATCHING
    ),
    "log.wandb": Knob(
        False, "send metrics.jsonl to Weights & Biases as well (extra: wandb)", **_WATCHING
    ),
    "log.wandb_project": Knob(
        "gptjax",
        "the project that a new wandb run belongs to",
        r"must not be empty, nor hold any of / \ # ? % :",
        lambda value: bool(value) and not set(value) & set(r"/\#?%:"),
        **_WATCHING,
    ),
    "log.wandb_run_name": Knob(
        "", "what the wandb run is called; empty: as the folder of out_dir", **_WATCHING
    ),
    "mesh.data": at_least(
        0,
        0,
        "copies of the state, each with its part of a batch; 0: as many as devices allow",
        **_MACHINE,
    ),
    "mesh.fsdp": at_least(
        1, 1, "devices that share a copy of the state, and its part of a batch", **_MACHINE
    ),
    "mesh.gpu_memory": fraction(
        0.75,
        "share of a GPU's memory that is taken at the start; 0: taken as needed, slower",
        **_MACHINE,
    ),
    "mesh.cpu_devices": between(1, 1, 256, "devices XLA makes of this host's CPU", **_MACHINE),
}
