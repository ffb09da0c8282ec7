"""transformers itself: its random GPT-2s are ours to 1e-4, ours are its, and write the same."""

import gpt2_files
import numpy as np
import pytest
import runs
import tiny

from gptjax import export_weights, sample
from gptjax.config.config import model_config
from gptjax.run.resume import resume_plan
from gptjax.update import step

SHAPES = [
    dict(n_layer=1, n_head=1, n_embd=4, n_positions=6, vocab_size=7),
    dict(n_layer=3, n_head=5, n_embd=35, n_positions=11, vocab_size=13),
    dict(n_layer=2, n_head=2, n_embd=64, n_positions=33, vocab_size=50_257),
    dict(n_layer=2, n_head=3, n_embd=24, n_positions=9, vocab_size=17, activation_function="gelu"),
]


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


@pytest.fixture(scope="module")
def transformers(torch):
    return pytest.importorskip("transformers")


def theirs(transformers, torch, **shape):
    """A GPT-2 of transformers' with weights far from their first, biases included."""
    ends = dict(bos_token_id=None, eos_token_id=None)
    config = transformers.GPT2Config(**ends, **shape)
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def logits_of(torch, model, ids_BT):
    with torch.no_grad():
        return model(torch.from_numpy(ids_BT)).logits.numpy()


def ours_logits(plan, ids_BT, n_symbols):
    state = plan.state(n_symbols)
    graph = step.model_graph(model_config(plan.config, n_symbols))
    return np.asarray(tiny.apply(graph, state.params, ids_BT.astype(np.int32)))


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape['n_embd']}")
@pytest.mark.parametrize("form", ["whole", "shards", "cut"])
def test_transformers_gpt2_is_ours_to_1e4(transformers, torch, tmp_path, shape, form):
    model = theirs(transformers, torch, **shape)
    size = {"max_shard_size": "10KB"} if form == "shards" else {}
    model.save_pretrained(tmp_path, **size)
    if form == "shards" and shape["n_embd"] > 4:
        assert len(list(tmp_path.glob("*.safetensors"))) > 1
    T = shape["n_positions"] - 2 * (form == "cut")
    ids_BT = np.random.default_rng(0).integers(0, shape["vocab_size"], (3, T))
    config = tiny.config(init_from=f"gpt2:{tmp_path}", out_dir="nowhere", model__block_size=T)
    found = ours_logits(resume_plan(config, []), ids_BT, shape["vocab_size"])
    np.testing.assert_allclose(found, logits_of(torch, model, ids_BT), rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("mlp", ["gelu", "gelu_tanh", "relu2"])
def test_ours_is_loaded_and_writes_the_same(transformers, torch, tmp_path, capsys, bias, mlp):
    config = tiny.config(
        data__source=gpt2_files.tokens(tmp_path / "tokens", 13),
        data__fallback="",
        model__bias=bias,
        model__mlp=mlp,
        model__dropout=0.1,
        model__vocab_multiple=8,
        optim__learning_rate=1e-2,
    )
    assert runs.start(config, tmp_path / "run") == 0
    export_weights.export_weights(str(tmp_path / "run"), step="latest", to="hf", dataset="")
    assert "hf: 28 tensors after 12 updates" in capsys.readouterr().out
    model, said = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "run" / "hf", output_loading_info=True
    )
    assert not any(said[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    found = runs.newest(tmp_path / "run")
    graph = step.model_graph(model_config(config, 13))
    ids_BT = np.random.default_rng(0).integers(0, 13, (3, 7))
    ours = np.asarray(tiny.apply(graph, found.state.params, ids_BT.astype(np.int32)))
    np.testing.assert_allclose(ours[..., :13], logits_of(torch, model, ids_BT), rtol=0, atol=1e-4)
    # Greedy, from one token on.
    settings = dict(max_new_tokens=6, do_sample=False, pad_token_id=0)
    written = model.generate(torch.tensor([[3]]), **settings)[0].tolist()
    settings = dict(num_samples=1, max_new_tokens=6, temperature=0.0, top_k=13, seed=0, stride=1)
    (text,) = sample.sampled_texts(found, prompt="3", prompt_file="", **settings)
    assert text.split() == list(map(str, written))


@pytest.mark.slow
def test_a_text_in_gpt2s_kind_of_tokens_is_fine_tuned_and_goes_back(transformers, torch, tmp_path):
    """Weights of transformers', BPE tokens of a text, and text again from what comes of both."""
    pytest.importorskip("tokenizers")
    shape = dict(n_layer=2, n_head=3, n_embd=24, n_positions=16, vocab_size=300)
    theirs(transformers, torch, **shape).save_pretrained(tmp_path / "weights")
    config = runs.settings(
        tmp_path,
        init_from=f"gpt2:{tmp_path}/weights",
        data__tokenizer="bpe:300",
        optim__schedule="constant",
        optim__learning_rate=3e-3,
        train__max_iters=30,
        eval__interval=30,
    )
    assert runs.start(config, tmp_path / "run") == 0
    first, last = (r["val_loss"] for r in runs.history(tmp_path / "run") if r["kind"] == "eval")
    assert last < first - 0.5
    export_weights.export_weights(str(tmp_path / "run"), step="latest", to="hf", dataset="")
    folder, prompt = tmp_path / "run" / "hf", "17: the 3 cats"
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ids_BT = tokenizer(prompt, return_tensors="pt")["input_ids"][:, -5:]
    assert model.config.eos_token_id == tokenizer.eos_token_id == 299
    prompt = tokenizer.decode(ids_BT[0])
    settings = dict(max_new_tokens=1, do_sample=False, pad_token_id=0)
    written = tokenizer.decode(model.generate(ids_BT, **settings)[0])
    settings = dict(num_samples=1, max_new_tokens=1, temperature=0.0, top_k=0, seed=0, stride=1)
    found = runs.newest(tmp_path / "run")
    (text,) = sample.sampled_texts(found, prompt=prompt, prompt_file="", **settings)
    assert text == written
