"""The oracles: what nanoGPT computed in float64 for two small models (tests/data/nanogpt_*.npz).

Recipe: nanoGPT's GPT with weights drawn far from their initial values, its AdamW, get_lr and
clip_grad_norm_ for five updates, everything in float64; PARITY names the arrays. The file with
biases lacks `init/…c_attn.bias`; nanogpt_bias_qkv.npz holds them, solved for (Gauss-Newton in
float64, residual 1e-14) from that file's own logits0 and grad0. Their key third has no influence
on any output, since it shifts a row of attention scores by a constant: it stands there as zeros.
"""

import dataclasses
import json
from pathlib import Path

import jax.numpy as jnp
import ml_collections
import numpy as np
from flax import nnx
from flax.traverse_util import flatten_dict, unflatten_dict

from gptjax.config.config import default_config, model_config
from gptjax.model.gpt import GPT

_DATA = Path(__file__).parent.parent / "data"
_NANOGPT_NAMES = {
    "blocks": "h",
    "attention": "attn",
    "qkv": "c_attn",
    "out": "c_proj",
    "up": "c_fc",
    "down": "c_proj",
    "kernel": "weight",
    "scale": "weight",
    "embedding": "weight",
}


class Oracle:
    """One oracle file, with its arrays under our parameters' names."""

    def __init__(self, name: str, dtype: str):
        self.arrays = dict(np.load(_DATA / f"nanogpt_{name}.npz"))
        if name == "bias":
            qkv_bias = np.load(_DATA / "nanogpt_bias_qkv.npz")["qkv_bias"]
            for layer, bias in enumerate(qkv_bias):
                self.arrays[f"init/transformer.h.{layer}.attn.c_attn.bias"] = bias
        self.settings = json.loads(str(self.arrays["config"]))
        self.dtype = dtype
        fields = ("n_layer", "n_head", "n_embd", "block_size", "bias", "vocab_size")
        self.model_config = dataclasses.replace(
            model_config(default_config(), 1),
            **{field: self.settings[field] for field in fields},
            dtype=dtype,
            param_dtype=dtype,
        )

    def config(self) -> ml_collections.ConfigDict:
        """The training settings as a gptjax config."""
        config = default_config()
        config.optim.update(
            learning_rate=self.settings["lr"],
            **{
                name: self.settings[name]
                for name in ("min_lr", "warmup_iters", "lr_decay_iters", "weight_decay")
                + ("beta1", "beta2", "grad_clip")
            },
        )
        return config

    def params(self, prefix: str) -> tuple[nnx.GraphDef, nnx.State]:
        """The model with the oracle's `prefix/…` arrays as its weights."""
        graph, params = nnx.split(nnx.eval_shape(lambda: GPT(self.model_config, rngs=nnx.Rngs(0))))
        flat = flatten_dict(nnx.to_pure_dict(params))
        for path in flat:
            flat[path] = jnp.asarray(self.array(prefix, path), dtype=self.dtype)
        nnx.replace_by_pure_dict(params, unflatten_dict(flat))
        return graph, params

    def array(self, prefix: str, path: tuple) -> np.ndarray:
        """The oracle's array for our parameter `path`, in our layout: kernels are (in, out)."""
        name = ".".join(_NANOGPT_NAMES.get(str(part), str(part)) for part in path)
        array = self.arrays[f"{prefix}/transformer.{name}"]
        return array.T if path[-1] == "kernel" else array

    def has(self, prefix: str, path: tuple) -> bool:
        """Whether the file holds `prefix/…` for our parameter `path`."""
        name = ".".join(_NANOGPT_NAMES.get(str(part), str(part)) for part in path)
        return f"{prefix}/transformer.{name}" in self.arrays


def assert_close(found, wanted, tolerance: float) -> None:
    """Each entry within `tolerance` of the oracle, relative to the array's largest entry."""
    wanted = np.asarray(wanted)
    np.testing.assert_allclose(
        np.asarray(found), wanted, rtol=0, atol=tolerance * np.abs(wanted).max()
    )
