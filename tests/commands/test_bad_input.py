"""Bad input on the real command lines: one clear line, exit 2, within seconds, nothing created.

Every case is a process of its own in a folder of its own, which is compared as a whole with what
it was before.
"""

import dataclasses
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import forked
import pytest
from forked import SCRIPTS

from gptjax.data.bpe_rules import BYTE_OF

CONFIG = """\
from gptjax.config.config import default_config


def get_config():
    config = default_config()
    config.update(
        out_dir="new",
        data=dict(source="text:text.txt"),
        model=dict(n_layer=1, n_head=1, n_embd=8, block_size=8),
        optim=dict(warmup_iters=0),
        train=dict(max_iters=2, batch_size=2),
        eval=dict(max_tokens=64),
    )
    return config
"""

# What a case's folder holds, where its command names it. text.txt is as short as tiny.py's
# block_size allows: of 88 characters val gets 9, one window of 8 and a target.
FILES: dict[str, bytes] = {
    "text.txt": b"abc def\nghi" * 8,
    "tiny.py": CONFIG.encode(),
    "empty.txt": b"",
    "latin1.txt": "olé".encode("latin-1"),
    "one.txt": b"a",
    "tiny_shakespeare/input.txt": b"First Citizen:\n",
    "syntax.py": b"import os\ndef get_config(:\n",
    "binary.py": b"x = 1\n\x00\xff\n",
    "nothing_in_it.py": b"x = 1\n",
    "raises.py": b"def get_config():\n    return 1 // 0\n",
    "plain_dict.py": b'def get_config():\n    return {"seed": 1}\n',
    "typo.py": CONFIG.replace("n_layer=1", "n_layers=1").encode(),
    "section_typo.py": CONFIG.replace("model=", "modle=").encode(),
    "wrong_type.py": CONFIG.replace("n_layer=1", 'n_layer="one"').encode(),
    "from_scratch.py": (
        b"import ml_collections\ndef get_config():\n"
        b"    return ml_collections.ConfigDict({'model': {'n_layer': 2}})\n"
    ),
    "bad_rule.py": CONFIG.replace("n_layer=1", "n_layer=0").encode(),
    "unlocked.py": (
        CONFIG.replace(
            "    return", "    config.unlock()\n    config.model.n_layers = 2\n    return"
        )
    ).encode(),
    "config.txt": CONFIG.encode(),
    "prompt.txt": b"abc",
    "prompt.bin": b"abc\xff\xfe",
    "prompt_large.txt": "é".encode() * 500_001,
    "empty_dir/": b"",
    "odd/train.bin": b"abc",
    "ids/train.bin": bytes([0, 0, 50, 0]),
    "ids/val.bin": bytes([0, 0, 1, 0]),
    "ids/meta.json": b'{"vocab_size": 50, "name": "ids", "entropy_nats": null}',
    "no_checkpoint/checkpoints/": b"",
    "vocab/vocab.json": json.dumps({symbol: n for n, symbol in enumerate(BYTE_OF)}).encode(),
    "vocab/merges.txt": b"#version: 0.2\na b\n",
}

TRAINED = "trained"

LONG_NAME = "n" * 300


@dataclasses.dataclass(frozen=True)
class Case:
    """A command line, run in a folder with the files it names, and words its error must have."""

    command: str
    words: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()
    # Whether the error comes before JAX is imported; then JAX cannot be imported at all.
    before_jax: bool = False


def config_errors(*rows: tuple[str, ...]) -> list[Case]:
    """Cases of `train.py --config tiny.py --config.…` that need nothing but the config."""
    return [
        Case(f"train --config tiny.py --config.{override}", tuple(words), before_jax=True)
        for override, *words in rows
    ]


def cases(prefix: str, *rows: tuple[str, ...], **settings: object) -> list[Case]:
    return [Case(f"{prefix}{rest}", tuple(words), **settings) for rest, *words in rows]


COMMAND_LINES = cases(
    "",
    ("train", "--config is missing", "for example: --config configs/shakespeare_char.py"),
    ("train --config tiny.py extra", "'extra'", "unexpected argument"),
    ("train --config tiny.py --lr=1", "'--lr=1'", "unexpected argument"),
    ("train --config", "--config", "expected one argument"),
    ("train --conf tiny.py", "'--conf'", "unexpected argument"),
    ("sample", "--out_dir", "required"),
    ("sample --out_dir trained extra", "'extra'", "unexpected argument"),
    ("sample --out_dir trained --temprature 1", "'--temprature'", "unexpected argument"),
    ("sample --out_dir trained --num_samples x", "--num_samples", "invalid int value: 'x'"),
    ("sample --out_dir trained --num_samples 1.5", "--num_samples", "invalid int value: '1.5'"),
    ("sample --out_dir trained --seed 1.5", "--seed", "invalid int value: '1.5'"),
    ("sample --out_dir trained --temperature hot", "--temperature", "invalid float value: 'hot'"),
    ("bench", "--config", "required"),
    ("bench --config tiny.py --what speed", "invalid choice: 'speed'"),
    ("bench --config tiny.py --pairs few", "--pairs", "invalid int value: 'few'"),
    ("bench --config missing.py", "--config: missing.py; no such file"),
    ("evaluate", "--out_dir", "required"),
    ("evaluate --out_dir trained extra", "'extra'", "unexpected argument"),
    ("evaluate --out_dir trained --context 1.5", "--context", "invalid int value: '1.5'"),
    ("import_weights", "required: --from, --out_dir"),
    ("import_weights --from ckpt.pt --out_dir new --to b.pt", "'--to'", "unexpected argument"),
    ("export_weights --out_dir trained", "required: --to"),
    before_jax=True,
)

CONFIG_FILES = cases(
    "train --config ",
    ("missing.py", "--config: missing.py; no such file"),
    ("empty_dir/", "--config: empty_dir/; is no file"),
    (f"{LONG_NAME}.py", f"--config: {LONG_NAME}.py; no such file"),
    ("config.txt", "--config: config.txt; is not a .py file"),
    ("syntax.py", "--config: syntax.py:2; SyntaxError"),
    ("binary.py", "--config: binary.py"),
    ("nothing_in_it.py", "--config: nothing_in_it.py; has no get_config()"),
    ("raises.py", "--config: raises.py:2; ZeroDivisionError"),
    ("plain_dict.py", "--config: plain_dict.py; get_config() returned no ConfigDict"),
    ("typo.py", "--config: typo.py:6; ", '"n_layers"', 'Did you mean "n_layer"'),
    ("section_typo.py", "--config: section_typo.py:6; ", '"modle"', 'Did you mean "model"'),
    ("unlocked.py", "unlocked.py; unknown knob model.n_layers", "did you mean 'model.n_layer'"),
    ("wrong_type.py", "--config: wrong_type.py:6; TypeError", "'n_layer'"),
    ("from_scratch.py", "--config: from_scratch.py; lacks ", "default_config()"),
    ("bad_rule.py", "model.n_layer: 0; must be ≥ 1"),
    before_jax=True,
)

CONFIG_VALUES = config_errors(
    ("model.n_layers=2", "--config.model.n_layers", "did you mean 'model.n_layer'?"),
    ("lrr=1", "--config.lrr", "no such knob"),
    ("train.max_iters", "--config.train.max_iters", "needs a value"),
    ("train.max_iters=3.5", "--config.train.max_iters: '3.5'; must be an integer"),
    ("train.max_iters=abc", "--config.train.max_iters: 'abc'; must be an integer"),
    ("optim.learning_rate=fast", "--config.optim.learning_rate: 'fast'; must be a number"),
    ("log.tensorboard=maybe", "--config.log.tensorboard: 'maybe'; must be true or false"),
    ("model.bias maybe", "--config.model.bias: 'maybe'; must be true or false"),
    ("model.n_head=3", "model.n_embd: 8; is not divisible by model.n_head 3. Try n_head 1, 2, 4"),
    ("model.n_head=0", "model.n_head: 0; must be ≥ 1"),
    ("model.n_layer=0", "model.n_layer: 0; must be ≥ 1"),
    ("model.n_layer=-1", "model.n_layer: -1; must be ≥ 1"),
    ("model.n_embd=0", "model.n_embd: 0; must be ≥ 1"),
    (
        "model.n_head=8 --config.model.position=rotary",
        "model.n_embd: 8; gives 8 heads an odd width each; rotary positions turn pairs",
        "Try n_embd 16, or position=learned.",
    ),
    ("model.block_size=0", "model.block_size: 0; must be ≥ 1"),
    ("model.dropout=1.0", "model.dropout: 1.0; must be in [0, 1)"),
    ("model.dropout=-0.1", "model.dropout: -0.1; must be in [0, 1)"),
    ("model.dropout=nan", "model.dropout: nan; must be in [0, 1)"),
    ("model.dtype=float16", "model.dtype: 'float16'; must be one of float32, bfloat16"),
    ("model.param_dtype=float17", "model.param_dtype: 'float17'; must be one of float32"),
    ("optim.learning_rate=nan", "optim.learning_rate: nan; must be finite and ≥ 0"),
    ("optim.learning_rate=inf", "optim.learning_rate: inf; must be finite and ≥ 0"),
    ("optim.learning_rate=-1e-3", "optim.learning_rate: -0.001; must be finite and ≥ 0"),
    ("optim.min_lr=0.1", "optim.min_lr: 0.1; must be ≤ learning_rate 0.001"),
    (
        "optim.warmup_iters=2 --config.optim.lr_decay_iters=2",
        "optim.warmup_iters: 2; must be < lr_decay_iters 2",
    ),
    ("optim.warmup_iters=-1", "optim.warmup_iters: -1; must be ≥ 0"),
    ("optim.beta1=1.0", "optim.beta1: 1.0; must be in [0, 1)"),
    ("optim.beta2=1.0", "optim.beta2: 1.0; must be in [0, 1)"),
    ("optim.weight_decay=-1", "optim.weight_decay: -1.0; must be finite and ≥ 0"),
    ("optim.grad_clip=-1", "optim.grad_clip: -1.0; must be finite and ≥ 0"),
    ("optim.schedule=step", "optim.schedule: 'step'; must be one of cosine, constant, linear"),
    ("optim.name=sgd", "optim.name: 'sgd'; must be one of adamw, muon"),
    ("optim.decay_share=0", "optim.decay_share: 0.0; must be in (0, 1]"),
    ("model.norm=batchnorm", "model.norm: 'batchnorm'; must be one of layernorm, rmsnorm"),
    ("train.max_iters=-1", "train.max_iters: -1; must be ≥ 0"),
    ("train.batch_size=0", "train.batch_size: 0; must be ≥ 1"),
    ("train.batch_size=-4", "train.batch_size: -4; must be ≥ 1"),
    ("train.grad_accum_steps=0", "train.grad_accum_steps: 0; must be ≥ 1"),
    ("train.grad_accum_steps=3", "train.batch_size: 2; is not divisible by", "3"),
    ("train.updates_per_dispatch=-1", "train.updates_per_dispatch: -1; must be from 0 to 10000"),
    ("eval.interval=0", "eval.interval: 0; must be ≥ 1"),
    ("eval.interval=-1", "eval.interval: -1; must be ≥ 1"),
    ("eval.mode=all", "eval.mode: 'all'; must be one of sweep, random"),
    ("eval.max_tokens=-1", "eval.max_tokens: -1; must be ≥ 0"),
    ("checkpoint.interval=0", "checkpoint.interval: 0; must be ≥ 1"),
    ("checkpoint.keep=0", "checkpoint.keep: 0; must be ≥ 1"),
    ("log.interval=0", "log.interval: 0; must be ≥ 1"),
    ("mesh.cpu_devices=0", "mesh.cpu_devices: 0; must be from 1 to 256"),
    ("mesh.data=-1", "mesh.data: -1; must be ≥ 0"),
    ("mesh.fsdp=0", "mesh.fsdp: 0; must be ≥ 1"),
    ("seed=-1", "seed: -1; must be an integer in [0, 2**32)"),
    (f"seed={2**40 + 1}", f"seed: {2**40 + 1}; must be an integer in [0, 2**32)"),
    ("seed=1.5", "--config.seed: '1.5'; must be an integer"),
    ("seed=x", "--config.seed: 'x'; must be an integer"),
    ("data.val_fraction=1", "data.val_fraction: 1.0; must be in (0, 1)"),
    ("data.tokenizer=bpe:256", "data.tokenizer: 'bpe:256'; must be", "N from 257 to 262144"),
    ("data.tokenizer=bpe:-3", "data.tokenizer: 'bpe:-3'; must be char, gpt2, a path or bpe:N"),
    ("data.tokenizer=BPE:300", "data.tokenizer: 'BPE:300'; must be char, gpt2, a path or bpe:N"),
    ("data.tokenizer=bpe", "data.tokenizer: 'bpe'; must be char, gpt2, a path or bpe:N"),
    ("data.tokenizer=", "data.tokenizer: ''; must be char, gpt2, a path or bpe:N"),
    (
        "data.tokenizer=gpt2 --config.data.source=tokens:ids",
        "data.tokenizer: gpt2; cannot be given with data.source=tokens:ids: its ids are tokens",
    ),
    ("data.fallback=other", "data.fallback: 'other'; must be one of synthetic"),
    ("out_dir=", "out_dir: ''; must not be empty"),
)

DATA = cases(
    "train --config tiny.py --config.",
    ("data.source=text:empty.txt", "data: empty.txt; is empty (0 bytes)"),
    ("data.source=text:latin1.txt", "data: latin1.txt; is not UTF-8 at byte 2 (0xe9)"),
    ("data.source=text:missing.txt", "data.source: missing.txt", "No such file"),
    ("data.source=text:empty_dir/", "data.source: empty_dir/", "Is a directory"),
    (f"data.source=text:{LONG_NAME}", f"data.source: {LONG_NAME}", "File name too long"),
    ("data.source=text:", "data.source: text:; unknown dataset", "text:PATH"),
    ("data.source=text:one.txt", "model.block_size: 8; needs 9 tokens; train has 0"),
    ("model.block_size=9", "model.block_size: 9; needs 10 tokens; val has 9. Lower block_size"),
    ("model.n_embd=8000000", "parameters; weights and optimizer need", "Lower n_layer or n_embd"),
    ("train.batch_size=2000000000", "a dispatch of 2000000000000 windows", "or batch_size."),
    ("data.source=shakspeare", "data.source: shakspeare", "did you mean 'tiny_shakespeare'"),
    ("data.source=tfds:no_such_dataset", "data.source: tfds:no_such_dataset; unknown dataset"),
    ("data.source=tfds:../../etc", "data.source: tfds:../../etc; a TFDS name is"),
    ("data.source=tokens:empty_dir", "data.source: empty_dir/train.bin; cannot be read: No such"),
    (f"data.source=tokens:{LONG_NAME}", f"data.source: {LONG_NAME}", "File name too long"),
    ("data.source=tokens:odd", "data.source: odd/train.bin; has 3 bytes; must hold ids of two"),
    ("data.source=tokens:ids", "ids/train.bin; has the id 50, and the vocabulary 50 ids"),
    ("data.tokenizer=bpe:400", "data.tokenizer: bpe:400; the text to train on gives", "at most"),
    ("data.tokenizer=cahr", "data.tokenizer: cahr; is neither char, bpe:N, gpt2", "mean 'char'"),
    ("data.tokenizer=empty_dir", "data.tokenizer: empty_dir/vocab.json; cannot be read: No such"),
    ("data.tokenizer=vocab", "data.tokenizer: vocab; has a merge, number 1 ('a b'), that makes no"),
) + [
    Case(
        "train --config tiny.py --config.data.tokenizer=gpt2",
        ("data.tokenizer: gpt2; the Hugging Face hub cannot be reached (", "or name their folder."),
        (("GPTJAX_DATA_DIR", ""), ("HF_ENDPOINT", "http://127.0.0.1:9"), ("HF_HOME", ".")),
    ),
    Case(
        "train --config tiny.py --config.data.source=tiny_shakespeare",
        ("tiny_shakespeare/input.txt; sha256 mismatch: got ", "want 86c4e6aa"),
        (("GPTJAX_DATA_DIR", "."),),
    ),
]

# No GPU is visible, so that the CUDA cases are errors everywhere.
NO_CUDA = (("JAX_PLATFORMS", "cuda"), ("CUDA_VISIBLE_DEVICES", ""))
NO_BANANA = (("JAX_PLATFORMS", "banana"),)

DEVICES = [
    *cases(
        "",
        ("train --config tiny.py", "JAX_PLATFORMS: cuda; no ", "Use JAX_PLATFORMS=cpu"),
        ("sample --out_dir trained", "JAX_PLATFORMS: cuda; no ", "Use JAX_PLATFORMS=cpu"),
        ("evaluate --out_dir trained", "JAX_PLATFORMS: cuda; no ", "Use JAX_PLATFORMS=cpu"),
        environment=NO_CUDA,
    ),
    Case("train --config tiny.py", ("JAX_PLATFORMS: banana; no ",), NO_BANANA),
    Case("sample --out_dir trained", ("JAX_PLATFORMS: banana; no ",), NO_BANANA),
    *cases(
        "train --config tiny.py --config.",
        (
            "mesh.cpu_devices=2 --config.train.batch_size=3",
            "train.batch_size: 3",
            "does not split over 2 devices. Use 2 or 4",
        ),
        ("mesh.data=9", "mesh.data: 9; there are only 1 devices"),
        ("mesh.fsdp=2", "mesh.fsdp: 2; there are only 1 devices"),
        (
            "mesh.cpu_devices=3 --config.mesh.fsdp=2",
            "mesh.fsdp: 2; does not divide the 3 devices. Set --config.mesh.data=1 to use 2",
        ),
    ),
]

RUN_DIRECTORIES = cases(
    "train --config tiny.py --config.",
    ("out_dir=text.txt", "out_dir: text.txt; text.txt is a file. Choose another"),
    ("out_dir=text.txt/below", "out_dir: text.txt/below; text.txt is a file"),
    # Nobody can create a file in /proc, not even root; elsewhere nobody but root can in /.
    ("out_dir=/proc/gptjax/run", "out_dir: /proc/gptjax/run", "cannot be written to"),
    (f"out_dir={LONG_NAME}", f"out_dir: {LONG_NAME}; ", "cannot be written to: File name too long"),
    ("out_dir=trained --config.seed=3", "seed: 3; the run in trained, at step 2, has 1337", "fork"),
    (
        "out_dir=trained --config.data.source=synthetic",
        "data.source: synthetic; the run in trained, at step 2, has text:text.txt: that",
        "Choose another --config.out_dir",
    ),
    (
        "out_dir=trained --config.data.source=text:other.txt",
        "data.source: other.txt; cannot be read: No such file",
    ),
    ("out_dir=trained --config.init_from=scratch", "out_dir: trained; has step 2", "auto"),
    ("out_dir=trained --config.init_from=trained", "out_dir: trained; has step 2"),
    (
        "init_from=trained --config.model.n_embd=16",
        "model.n_embd: 16; the checkpoint trained has 8",
    ),
    ("init_from=empty_dir/", "init_from: empty_dir; is neither auto, scratch, a run"),
    ("init_from=no_checkpoint/", "init_from: no_checkpoint; has no checkpoint"),
    ("init_from=trained/checkpoints/77", "init_from: 77; must be best, latest or one of 0, 2"),
    (f"init_from={LONG_NAME}", f"init_from: {LONG_NAME}; is neither auto"),
)

CHECKPOINTS = cases(
    "",
    ("sample --out_dir missing", "--out_dir: missing; holds no run. Train one"),
    ("sample --out_dir empty_dir/", "--out_dir: empty_dir/; holds no run"),
    ("sample --out_dir text.txt", "--out_dir: text.txt; holds no run"),
    (f"sample --out_dir {LONG_NAME}", f"--out_dir: {LONG_NAME}; holds no run"),
    ("sample --out_dir no_checkpoint/", "--out_dir: no_checkpoint/; has no checkpoint yet"),
    ("sample --out_dir trained --step 77", "--step: 77; must be best, latest or one of 0, 2"),
    ("sample --out_dir trained --step last", "--step: last; must be best, latest or one of 0, 2"),
    ("evaluate --out_dir empty_dir/", "--out_dir: empty_dir/; holds no run"),
    ("evaluate --out_dir no_checkpoint/", "--out_dir: no_checkpoint/; has no checkpoint yet"),
    ("evaluate --out_dir trained --step 77", "--step: 77; must be best, latest or one of 0, 2"),
    ("evaluate --out_dir trained --context 9", "--context: 9; must be from 1 to block_size 8"),
    ("evaluate --out_dir trained --context -1", "--context: -1; must be from 1 to block_size 8"),
)

SAMPLING = cases(
    "sample --out_dir trained ",
    ("--prompt é", "prompt: 'é' (U+00E9 ", "is not in the 11-symbol vocabulary"),
    ("--prompt_file missing.txt", "--prompt_file: missing.txt", "No such file"),
    ("--prompt_file empty_dir/", "--prompt_file: empty_dir/", "Is a directory"),
    ("--prompt_file prompt.bin", "--prompt_file: prompt.bin; is not UTF-8"),
    ("--prompt_file prompt_large.txt", "--prompt_file: prompt_large.txt; is larger than 1 MB"),
    ("--prompt abc --prompt_file prompt.txt", "--prompt_file: prompt.txt", "together"),
    ("--stride 0", "--stride: 0; must be from 1 to 7, block_size - 1"),
    ("--stride 8", "--stride: 8; must be from 1 to 7, block_size - 1"),
    ("--temperature -0.5", "--temperature: -0.5; must be ≥ 0 and finite"),
    ("--temperature nan", "--temperature: nan; must be ≥ 0 and finite"),
    ("--temperature inf", "--temperature: inf; must be ≥ 0 and finite"),
    ("--top_k -1", "--top_k: -1; must be ≥ 0"),
    ("--num_samples 0", "--num_samples: 0; must be ≥ 1"),
    ("--max_new_tokens -1", "--max_new_tokens: -1; must be ≥ 1"),
    ("--seed -1", "--seed: -1; must be an integer in [0, 2**32)"),
    (f"--seed {2**40 + 1}", f"--seed: {2**40 + 1}; must be an integer in [0, 2**32)"),
)

# What needs no torch to be seen.
WEIGHTS = cases(
    "",
    ("import_weights --from missing.pt --out_dir new", "--from: missing.pt; no such file"),
    ("import_weights --from empty_dir/ --out_dir new", "--from: empty_dir; is not a file"),
    ("import_weights --from text.txt --out_dir new/run", "--from: text.txt; is no ckpt.pt that"),
    ("import_weights --from text.txt --out_dir trained", "--out_dir: trained; is not empty"),
    ("import_weights --from a.pt --out_dir text.txt/new", "out_dir: text.txt/new; text.txt is a f"),
    ("export_weights --out_dir trained --to text.txt", "--to: text.txt; is there already"),
    ("export_weights --out_dir trained --to new/ckpt.pt", "--to: new/ckpt.pt; its folder does not"),
)

CASES = (
    COMMAND_LINES
    + CONFIG_FILES
    + CONFIG_VALUES
    + DATA
    + DEVICES
    + RUN_DIRECTORIES
    + CHECKPOINTS
    + SAMPLING
    + WEIGHTS
)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a process did: `before` and `after` are its folder's content."""

    code: int
    output: str
    errors: str
    seconds: float
    before: dict[str, bytes]
    after: dict[str, bytes]


def content(folder: Path) -> dict[str, bytes]:
    """Every path below a folder with its bytes; a folder has none.

    The lock of a run directory is listed, but its text, which names who held it last, is left out.
    """
    return {
        str(path.relative_to(folder)): (
            path.read_bytes() if path.is_file() and path.name != ".lock" else b""
        )
        for path in folder.rglob("*")
    }


def run(command: str, folder: Path, environment: dict[str, str], logs: Path) -> Outcome:
    """Runs a script in a folder that is its HOME as well, so that no cache escapes notice."""
    script, *arguments = shlex.split(command)
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("GPTJAX_", "XDG_", "PYTHON", "XLA_FLAGS"))
    }
    everything = inherited | {"JAX_PLATFORMS": "cpu", "HOME": str(folder)} | environment
    before = content(folder)
    if {"PYTHONPATH", "JAX_PLATFORMS"} & environment.keys():  # Read when Python or JAX starts.
        start = time.monotonic()
        process = subprocess.run(
            [sys.executable, str(SCRIPTS / f"{script}.py"), *arguments],
            cwd=folder,
            env=everything,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=60,
        )
        code, output, errors = process.returncode, process.stdout, process.stderr
        seconds = time.monotonic() - start
    else:
        ended = forked.run(logs, script, *arguments, cwd=folder, environment=everything)
        code, output, errors, seconds = ended.code, ended.stdout, ended.stderr, ended.seconds
    return Outcome(code, output, errors, seconds, before, content(folder))


def write_files(folder: Path, command: str) -> None:
    """Writes the files that a command or tiny.py names."""
    for name, raw in FILES.items():
        if name in ("text.txt", "tiny.py") or name.split("/")[0] in command:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir() if name.endswith("/") else path.write_bytes(raw)


@pytest.fixture(scope="session")
def no_jax(tmp_path_factory):
    """A folder that, on PYTHONPATH, makes every import of JAX an error."""
    folder = tmp_path_factory.mktemp("no_jax")
    (folder / "jax.py").write_text('raise AssertionError("JAX was imported")\n')
    return folder


@pytest.fixture(scope="session")
def training(tmp_path_factory):
    """A folder with a trained run in it, and the Outcome of training it."""
    folder = tmp_path_factory.mktemp("training")
    write_files(folder, "")
    logs = tmp_path_factory.mktemp("logs")
    outcome = run(f"train --config tiny.py --config.out_dir={TRAINED}", folder, {}, logs)
    assert outcome.code == 0, outcome.errors
    return folder, outcome


def case_id(case: Case) -> str:
    platform = dict(case.environment).get("JAX_PLATFORMS", "")
    name = case.command.replace(LONG_NAME, "LONG_NAME").replace("train --config tiny.py", "train")
    return f"{name.strip()} {platform}".strip()


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_p22_is_one_clear_line_within_seconds_that_leaves_nothing(
    case, tmp_path, tmp_path_factory, no_jax, request
):
    write_files(tmp_path, case.command)
    if TRAINED in case.command and not case.before_jax:
        folder, _ = request.getfixturevalue("training")
        shutil.copytree(folder / TRAINED, tmp_path / TRAINED)
    environment = {"PYTHONPATH": str(no_jax)} if case.before_jax else {}
    logs = tmp_path_factory.mktemp("logs")
    outcome = run(case.command, tmp_path, environment | dict(case.environment), logs)
    assert outcome.code == 2, outcome.errors
    assert outcome.output == ""
    assert outcome.errors.startswith("gptjax: error: ")
    assert outcome.errors.endswith("\n")
    assert outcome.errors.count("\n") == 1
    assert "Traceback" not in outcome.errors
    for word in case.words:
        assert word in outcome.errors
    assert outcome.after == outcome.before
    assert outcome.seconds < (3 if case.before_jax else 10)


def test_the_cases_differ():
    assert len(set(CASES)) == len(CASES)


def test_jax_is_missed_where_it_is_needed(tmp_path, no_jax):
    # Without this, cases that must not import JAX would prove nothing.
    write_files(tmp_path, "")
    outcome = run("train --config tiny.py", tmp_path, {"PYTHONPATH": str(no_jax)}, tmp_path)
    assert "AssertionError: JAX was imported" in outcome.errors


def test_the_shortest_text_that_fills_a_window_trains(training):
    # One character fewer in val, and it would be too short for block_size and a target.
    _, outcome = training
    assert "79 train and 9 val tokens" in outcome.output
    assert outcome.after.keys() > outcome.before.keys()


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind root")
def test_a_folder_without_write_permission_is_refused(tmp_path, tmp_path_factory):
    write_files(tmp_path, "")
    (tmp_path / "closed").mkdir(mode=0o500)
    logs = tmp_path_factory.mktemp("logs")
    outcome = run("train --config tiny.py --config.out_dir=closed/run", tmp_path, {}, logs)
    assert outcome.code == 2
    assert "out_dir: closed/run; closed cannot be written to: Permission denied" in outcome.errors
    assert outcome.after == outcome.before
