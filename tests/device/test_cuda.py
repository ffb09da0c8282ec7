"""What only a GPU can show: JAX_PLATFORMS=cuda pytest -m cuda -n 0.

Without a GPU all of these skip. GPTJAX_SMOKE_TEST=1 runs them with the CPU in the GPU's place,
apart from what a CPU cannot do: so that their own mistakes are found before a card is at hand.
"""

import functools
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import nnx

from gptjax.device import devices, kernels, memory
from gptjax.model import attention
from gptjax.model.layers import Dropout
from gptjax.run.checkpoint import Checkpoints
from gptjax.run.runlog import read_records
from gptjax.speed.stepper import Stepper
from gptjax.update import step

pytestmark = pytest.mark.cuda

SCRIPTS = Path(__file__).parent.parent.parent / "scripts"
IS_SMOKE_TEST = bool(os.environ.get("GPTJAX_SMOKE_TEST"))
PLATFORM = "cpu" if IS_SMOKE_TEST else "cuda"

CONFIG = """
from gptjax.config.config import default_config

def get_config():
    config = default_config()
    config.model.update(n_layer=2, n_head=2, n_embd=32, block_size=32, dropout={dropout})
    config.model.matmul_precision = "highest"  # as on a CPU
    config.update(
        data=dict(source="text:text.txt"),
        optim=dict(warmup_iters=4),
        train=dict(max_iters={max_iters}, batch_size=8),
        eval=dict(interval=10, max_tokens=640),
        checkpoint=dict(interval=10),
        log=dict(interval=1),
    )
    return config
"""


@pytest.fixture(scope="module")
def card():
    """The GPU; in a smoke test the CPU."""
    if IS_SMOKE_TEST:
        return jax.devices("cpu")[0]
    try:
        return jax.devices("gpu")[0]
    except RuntimeError:
        pytest.skip("needs an NVIDIA GPU: JAX_PLATFORMS=cuda pytest -m cuda -n 0")


@pytest.fixture(scope="module")
def real_card(card):
    """The GPU, for what a CPU cannot do."""
    if IS_SMOKE_TEST:
        pytest.skip("a CPU cannot do this")
    return card


def run(folder, name, *arguments, platform=PLATFORM, **variables):
    """What a command printed, run in a folder with a small text, with `variables` set."""
    path = folder / "text.txt"
    if not path.exists():
        path.write_text(tiny.TEXT)
    # Where gptjax could not be installed, its folder is enough.
    found = os.pathsep.join(filter(None, (str(SCRIPTS.parent), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "JAX_PLATFORMS": platform, "PYTHONPATH": found, **variables}
    finished = subprocess.run(
        [sys.executable, str(SCRIPTS / f"{name}.py"), *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert finished.returncode == 0, finished.stderr[-2000:]
    return finished.stdout


def train(folder, out_dir, *knobs, dropout=0.0, max_iters=20, **settings):
    """Trains the small model; returns what it printed."""
    (folder / "config.py").write_text(CONFIG.format(dropout=dropout, max_iters=max_iters))
    flags = [f"--config.{knob}" for knob in (f"out_dir={out_dir}", *knobs)]
    return run(folder, "train", "--config", "config.py", *flags, **settings)


def records(folder, out_dir, kind):
    return [r for r in read_records(folder / out_dir / "metrics.jsonl") if r["kind"] == kind]


def newest(folder, out_dir):
    with Checkpoints(folder / out_dir, read_only=True) as checkpoints:
        return checkpoints.restore(checkpoints.steps()[-1])


@pytest.mark.parametrize("shape", [(2, 3, 256, 64), (1, 2, 1024, 64), (2, 2, 77, 32)], ids=str)
def test_fused_attention_agrees_with_plain_in_float32(real_card, shape):
    if devices.compute_capability(real_card) < devices.AMPERE:
        pytest.skip("this card is too old for cuDNN's fused attention")
    parts = jax.random.normal(jax.random.key(0), (4, *shape))
    temperature = shape[-1] ** 0.5

    @functools.partial(jax.jit, static_argnums=(0, 2))
    def results(attend, parts, dtype):
        q, k, v, grad = parts.astype(dtype)
        y, pull = jax.vjp(lambda *qkv: attend(*qkv, temperature=temperature), q, k, v)
        return y, *pull(grad)

    with jax.default_matmul_precision("highest"):
        wanted = results(attention.xla_attention, parts.astype(jnp.bfloat16), jnp.float32)
    for attend in (attention.cudnn_attention, attention.xla_attention):
        found = results(attend, parts, jnp.bfloat16)
        for a, b in zip(found, wanted, strict=True):
            # bfloat16 keeps 8 bits: a few of them are lost on the way.
            error = np.abs(np.asarray(a, np.float32) - b).max() / np.abs(b).max()
            assert error < 0.02


def test_this_card_has_the_fused_kernel(real_card):
    if devices.compute_capability(real_card) < devices.AMPERE:
        pytest.skip("this card is too old for cuDNN's fused attention")
    model = tiny.model_config(dtype="bfloat16", n_head=2, n_embd=128, block_size=64)
    chosen = kernels.choose_attention(model, real_card)
    assert chosen.updates == "cudnn", chosen.why


@pytest.mark.parametrize("precision", ["default", "highest"])
def test_float32_products_are_as_exact_as_asked(real_card, precision):
    a = np.random.default_rng(0).normal(size=(512, 512)).astype(np.float32)
    exact = a.astype(np.float64) @ a
    with kernels.matmul_precision(tiny.model_config(matmul_precision=precision)):
        found = np.asarray(jax.jit(jnp.matmul)(a, a), np.float64)
    error = np.linalg.norm(found - exact) / np.linalg.norm(exact)
    if precision == "highest":
        assert error < 1e-6
    elif devices.compute_capability(real_card) >= devices.AMPERE:
        assert 1e-5 < error < 2e-3  # TF32: 10 bits of each factor


def test_gradients_in_float64_are_the_cpus(card, x64):
    graph, _, state = tiny.parts(tiny.model_config(dtype="float64"), tiny.config())
    ids = np.random.default_rng(0).integers(0, tiny.VOCABULARY, (2, 3, 7)).astype(np.int32)

    @jax.jit
    def gradients(params, x_BT, y_BT):
        def loss(params):
            return step.next_token_losses(nnx.merge(graph, params)(x_BT), y_BT).mean()

        return jax.value_and_grad(loss)(params)

    on = {
        device.platform: gradients(*jax.device_put((state.params, *ids), device))
        for device in (jax.devices("cpu")[0], card)
    }
    found, wanted = on[card.platform], on["cpu"]
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        b = np.asarray(b)
        np.testing.assert_allclose(np.asarray(a), b, rtol=0, atol=1e-6 * np.abs(b).max())


@pytest.mark.parametrize("generator", ["threefry", "philox"])
def test_masks_of_dropout_are_the_same_on_every_device(card, generator):
    dropout = Dropout(0.2, generator)
    mask = jax.jit(lambda key: dropout.mask((5, 7, 61), nnx.Rngs(dropout=key)))
    key = jax.random.key(3)
    masks = [np.asarray(mask(jax.device_put(key, d))) for d in (jax.devices("cpu")[0], card)]
    np.testing.assert_array_equal(*masks)


@pytest.fixture(scope="module")
def folder(card, tmp_path_factory):
    """Two runs, `card` and `cpu`, of 10 updates and then, resumed, of 10 more."""
    folder = tmp_path_factory.mktemp("runs")
    for name, platform in (("card", PLATFORM), ("cpu", "cpu")):
        for max_iters in (10, 20):
            train(folder, name, max_iters=max_iters, platform=platform)
    return folder


def losses(folder, out_dir):
    return [record["loss"] for record in records(folder, out_dir, "train")]


def test_a_run_says_what_it_ran_on(card, folder):
    first, second = records(folder, "card", "run")
    assert first["platform"] == card.platform and first["device"] == card.device_kind
    assert first["attention"]["updates"] == "xla" and first["attention"]["why"]
    assert "compiled_flops_per_update" in first and second["start_step"] == 10
    found = losses(folder, "card")
    assert len(found) == 20 and found[-1] < found[0]


def test_flops_are_the_cpus_count(folder):
    """Whatever the device, MFU is computed from the same number."""
    counts = {records(folder, name, "run")[0]["flops_per_update"] for name in ("card", "cpu")}
    assert len(counts) == 1 and min(counts) > 0


def test_with_full_precision_the_losses_are_the_cpus(folder):
    np.testing.assert_allclose(losses(folder, "card"), losses(folder, "cpu"), rtol=1e-3)


@pytest.mark.parametrize(("first", "second"), [("cpu", PLATFORM), ("card", "cpu")])
def test_p15_a_run_goes_on_on_the_other_kind_of_device(folder, tmp_path, first, second):
    shutil.copytree(folder / first, tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "checkpoints" / "20")
    printed = train(tmp_path, "out", max_iters=20, platform=second)
    assert "resumed at step 10" in printed
    np.testing.assert_allclose(losses(tmp_path, "out"), losses(folder, "cpu"), rtol=1e-3)


def test_the_same_text_and_the_same_loss_as_the_cpu(folder):
    texts, vals = [], []
    for platform in (PLATFORM, "cpu"):
        arguments = ("--out_dir", "card", "--temperature", "0", "--num_samples", "1")
        texts += [run(folder, "sample", *arguments, platform=platform)]
        said = run(folder, "evaluate", "--out_dir", "card", platform=platform).splitlines()
        vals += [float(said[1].split()[1])]
    assert texts[0] == texts[1] and abs(vals[0] - vals[1]) < 2e-4


def test_replay_finds_the_devices_close(folder):
    devices = "cpu,cpu:bfloat16" if IS_SMOKE_TEST else "cpu,cuda,cuda:tf32,cuda:bfloat16"
    arguments = ("--out_dir", "cpu", "--step", "10", "--updates", "10", "--json", "found.json")
    run(folder, "replay", "--devices", devices, *arguments)
    replicas = json.loads((folder / "found.json").read_text())["replicas"]
    assert [replica["problem"] for replica in replicas] == [""] * len(replicas)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_p8_deterministic_operations_give_the_same_bits(card, tmp_path, dtype):
    flags = "" if IS_SMOKE_TEST else "--xla_gpu_deterministic_ops=true"
    settings = dict(dropout=0.2, XLA_FLAGS=flags)
    (tmp_path / "text.txt").write_text(tiny.TEXT)
    with ThreadPoolExecutor(3) as pool:
        names = ["first", "second", "third"]
        list(
            pool.map(lambda name: train(tmp_path, name, f"model.dtype={dtype}", **settings), names)
        )
    first, *others = (newest(tmp_path, name).state for name in names)
    for other in others:
        tiny.assert_same_bits(other, first)


def test_the_share_of_memory_taken_is_the_one_asked_for(real_card, tmp_path):
    limits = []
    for share in ("0.2", "0.4"):
        variables = {
            "XLA_PYTHON_CLIENT_PREALLOCATE": "true",
            "XLA_PYTHON_CLIENT_MEM_FRACTION": share,
        }
        run(tmp_path, "doctor", "--json", "found.json", **variables)
        found = json.loads((tmp_path / "found.json").read_text())
        limits.append(found["devices"]["memory_bytes"])
    assert limits[1] == pytest.approx(2 * limits[0], rel=0.05)


def test_a_profile_tells_where_the_time_goes(card, tmp_path):
    (tmp_path / "config.py").write_text(CONFIG.format(dropout=0.0, max_iters=20))
    arguments = ("--config", "config.py", "--what", "profile", "--json", "found.json")
    run(tmp_path, "bench", *arguments)
    groups = json.loads((tmp_path / "found.json").read_text())["op_groups"]
    assert groups["elementwise"] > 0 and groups["matmul"] + groups["attention"] > 0


def test_a_compiled_program_needs_memory_that_the_card_has(card, tmp_path):
    (tmp_path / "text.txt").write_text(tiny.TEXT)
    program = Stepper(tiny.config(data__source=f"text:{tmp_path / 'text.txt'}")).program
    assert 0 < program.memory_bytes() < memory.memory_bytes(card)
    counted = program.costs_to_json()["compiled_flops_per_update"]
    assert counted is None or np.isfinite(counted)  # recorded, whatever it is
