"""A random GPT-2 as transformers saves it, and its logits in plain NumPy, float64."""

import json
import math

import numpy as np
from safetensors.numpy import save_file

SIZES = dict(n_layer=2, n_head=3, n_embd=15, n_positions=7, vocab_size=11)


def config_json(**changes):
    """A config.json as transformers writes it, with the sizes of tests unless changed."""
    return {
        "activation_function": "gelu_new",
        "architectures": ["GPT2LMHeadModel"],
        "attn_pdrop": 0.1,
        "bos_token_id": 0,
        "embd_pdrop": 0.1,
        "eos_token_id": 0,
        "initializer_range": 0.02,
        "layer_norm_epsilon": 1e-05,
        "model_type": "gpt2",
        "n_ctx": SIZES["n_positions"],
        "n_inner": None,
        "reorder_and_upcast_attn": False,
        "resid_pdrop": 0.1,
        "scale_attn_by_inverse_layer_idx": False,
        "scale_attn_weights": True,
        "use_cache": True,
        **SIZES,
        **changes,
    }


def tensors(*, seed=0, n_layer, n_embd, n_positions, vocab_size, **_):
    """A GPT-2's tensors as the hub has them: no prefix, no head, matrices (in, out)."""
    D, rng = n_embd, np.random.default_rng(seed)
    shapes = {"wte.weight": (vocab_size, D), "wpe.weight": (n_positions, D)}
    for layer in range(n_layer):
        block = f"h.{layer}"
        shapes |= {
            **{f"{block}.ln_1.weight": (D,), f"{block}.ln_1.bias": (D,)},
            **{f"{block}.attn.c_attn.weight": (D, 3 * D), f"{block}.attn.c_attn.bias": (3 * D,)},
            **{f"{block}.attn.c_proj.weight": (D, D), f"{block}.attn.c_proj.bias": (D,)},
            **{f"{block}.ln_2.weight": (D,), f"{block}.ln_2.bias": (D,)},
            **{f"{block}.mlp.c_fc.weight": (D, 4 * D), f"{block}.mlp.c_fc.bias": (4 * D,)},
            **{f"{block}.mlp.c_proj.weight": (4 * D, D), f"{block}.mlp.c_proj.bias": (D,)},
        }
    shapes |= {"ln_f.weight": (D,), "ln_f.bias": (D,)}
    return {
        name: (rng.normal(size=shape) * 0.3 + name.endswith("ln_1.weight")).astype(np.float32)
        for name, shape in shapes.items()
    }


def write(folder, weights=None, **changes):
    """Writes config.json and model.safetensors; returns the folder."""
    described = config_json(**changes)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(described))
    weights = tensors(**described) if weights is None else weights
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def with_prefix(weights):
    """The same as GPT2LMHeadModel.save_pretrained names them."""
    return {f"transformer.{name}": array for name, array in weights.items()}


def gelu_new(h):
    return h * 0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)))


def logits(weights, ids_BT, *, n_layer, n_head, n_embd, gelu=gelu_new, **_):
    """What a GPT-2 makes of tokens, from tensors without prefix."""
    wide = {name: np.asarray(array, np.float64) for name, array in weights.items()}
    B, T = ids_BT.shape
    K = n_embd // n_head

    def norm(x, name):
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        return scaled * wide[f"{name}.weight"] + wide[f"{name}.bias"]

    def product(x, name):
        return x @ wide[f"{name}.weight"] + wide[f"{name}.bias"]

    x_BTD = wide["wte.weight"][ids_BT] + wide["wpe.weight"][:T]
    for block in (f"h.{layer}" for layer in range(n_layer)):
        qkv = product(norm(x_BTD, f"{block}.ln_1"), f"{block}.attn.c_attn")
        q, k, v = (
            part.reshape(B, T, n_head, K).transpose(0, 2, 1, 3) for part in np.split(qkv, 3, -1)
        )
        scores_BHTT = q @ k.transpose(0, 1, 3, 2) / math.sqrt(K)
        scores_BHTT[..., np.triu(np.ones((T, T), bool), 1)] = -np.inf
        shares = np.exp(scores_BHTT - scores_BHTT.max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
        mixed = (shares @ v).transpose(0, 2, 1, 3).reshape(B, T, n_embd)
        x_BTD = x_BTD + product(mixed, f"{block}.attn.c_proj")
        hidden = gelu(product(norm(x_BTD, f"{block}.ln_2"), f"{block}.mlp.c_fc"))
        x_BTD = x_BTD + product(hidden, f"{block}.mlp.c_proj")
    return norm(x_BTD, "ln_f") @ wide["wte.weight"].T


def tokens(folder, n_symbols=SIZES["vocab_size"]):
    """Writes token files in which each id is followed by the next; returns their data.source."""
    folder.mkdir()
    ids = np.arange(3000) % n_symbols
    ids[:2800].astype("<u2").tofile(folder / "train.bin")
    ids[2800:].astype("<u2").tofile(folder / "val.bin")
    meta = {"vocab_size": n_symbols, "name": "circle", "entropy_nats": None}
    (folder / "meta.json").write_text(json.dumps(meta))
    return f"tokens:{folder}"
