"""A checkpoint of ours as a GPT-2's folder: the same logits by the plain reference, and back."""

import json
import math
import os
from pathlib import Path

import gpt2_files
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from safetensors.numpy import load_file

from gptjax.config.config import from_flat, model_config, set_knob
from gptjax.run import gpt2_folder, pretrained
from gptjax.run.checkpoint import Checkpoint
from gptjax.run.resume import resume_plan
from gptjax.system.errors import UserError


def checkpoint(**knobs):
    """(one that was never trained but has weights far from its first, its graph)."""
    config = tiny.config(**knobs)
    model = model_config(config, tiny.VOCABULARY)
    graph, _, state = tiny.parts(model, config)
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: jnp.asarray(0.4 * rng.normal(size=leaf.shape), leaf.dtype), state.params
    )
    return Checkpoint(0, tiny.description(config), state.replace(params=params)), graph


@pytest.mark.parametrize(
    "knobs",
    [
        {"model__bias": False, "model__mlp": "gelu", "model__dropout": 0.2},
        {"model__bias": True, "model__mlp": "relu2", "model__vocab_multiple": 8},
    ],
)
def test_its_logits_are_ours(tmp_path, knobs):
    found, graph = checkpoint(**knobs)
    assert gpt2_folder.write(found, tmp_path) == 2 * 12 + 4
    described = json.loads((tmp_path / "config.json").read_text())
    weights = {
        name.removeprefix("transformer."): array
        for name, array in load_file(tmp_path / "model.safetensors").items()
    }
    gelu = {
        "gelu": lambda h: h * (1 + np.vectorize(math.erf)(h / np.sqrt(2))) / 2,
        "relu2": lambda h: np.maximum(h, 0) ** 2,
    }[described["activation_function"]]
    ids_BT, _ = tiny.batch(2, 7)
    ours = np.asarray(tiny.apply(graph, found.state.params, ids_BT))[..., : tiny.VOCABULARY]
    wanted = gpt2_files.logits(weights, np.asarray(ids_BT), gelu=gelu, **described)
    np.testing.assert_allclose(ours, wanted, rtol=1e-4, atol=1e-4)
    assert described["vocab_size"] == tiny.VOCABULARY == len(weights["wte.weight"])


def test_in_again_no_bit_changes(tmp_path):
    found, _ = checkpoint(model__bias=True, model__mlp="gelu_tanh")
    gpt2_folder.write(found, tmp_path)
    plan = resume_plan(tiny.config(init_from=f"gpt2:{tmp_path}", out_dir="nowhere"), [])
    tiny.assert_same_bits(plan.state(tiny.VOCABULARY).params, found.state.params)
    assert pretrained.read(f"gpt2:{tmp_path}").vocab_size == tiny.VOCABULARY


def test_bfloat16_parameters_are_widened(tmp_path):
    found, _ = checkpoint(model__param_dtype="bfloat16")
    gpt2_folder.write(found, tmp_path)
    wte = load_file(tmp_path / "model.safetensors")["transformer.wte.weight"]
    assert wte.dtype == np.float32
    np.testing.assert_array_equal(wte, np.asarray(found.state.params["wte"]["embedding"][...]))


@pytest.mark.parametrize(
    ("knob", "value"),
    [
        ("model.norm", "rmsnorm"),
        ("model.position", "rotary"),
        ("model.qk_norm", True),
        ("model.tie_embeddings", False),
        ("model.token_shift", True),
    ],
)
def test_what_gpt2_has_not_is_refused_by_its_knob(knob, value):
    config = from_flat({knob: value}, origin="test")
    with pytest.raises(UserError, match=f"{knob}: {value}; no GPT-2 has it, only"):
        gpt2_folder.check_is_gpt2(config)
    set_knob(config, knob, gpt2_folder.ALWAYS[knob])
    gpt2_folder.check_is_gpt2(config)


def test_only_gpt2s_own_vocabulary_has_an_end(tmp_path):
    found, _ = checkpoint()
    assert gpt2_folder.content(found)[1]["eos_token_id"] is None


def of_gpt2():
    """GPT-2's own BPE as a checkpoint describes it; skips the test where its files are not."""
    folder = Path(os.environ.get("GPTJAX_DATA_DIR") or "nowhere") / "gpt2"
    if not (folder / "merges.txt").is_file():
        pytest.skip("wants GPTJAX_DATA_DIR with gpt2/vocab.json and gpt2/merges.txt")
    numbers = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    merges = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()[1:]
    tokens = sorted(numbers, key=numbers.__getitem__)
    return {"kind": "bpe", "tokens": "\n".join(tokens), "merges": "\n".join(merges)}, folder


def test_gpt2s_own_tokenizer_comes_out_as_it_is():
    described, folder = of_gpt2()
    files = gpt2_folder.tokenizer_files(described)
    assert files["merges.txt"] == (folder / "merges.txt").read_text(encoding="utf-8")
    own = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    assert json.loads(files["vocab.json"]) == own and own["<|endoftext|>"] == 50_256


def test_characters_and_ids_have_no_tokenizers_files():
    for described in ({"kind": "char", "symbols": "ab"}, {"kind": "ids", "vocab_size": 50_257}):
        assert gpt2_folder.tokenizer_files(described) == {}
    small = {"kind": "bpe", "tokens": "a\nb\nab", "merges": "a b"}
    assert (
        json.loads(gpt2_folder.tokenizer_files(small)["tokenizer_config.json"])["eos_token"] is None
    )


@pytest.mark.slow
def test_transformers_reads_the_tokenizer(tmp_path):
    transformers = pytest.importorskip("transformers")
    described, _ = of_gpt2()
    gpt2_files.write(tmp_path)
    for name, text in gpt2_folder.tokenizer_files(described).items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    # As GPT-2's own encoder.py has them.
    assert tokenizer("Hello world")["input_ids"] == [15496, 995]
    assert tokenizer.eos_token_id == 50_256 and len(tokenizer) == 50_257
    text = "naïve café 😀\n\tfor i in range(3):"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
