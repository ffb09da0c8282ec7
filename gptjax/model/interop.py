"""nanoGPT's and GPT-2's weights by name, and as our GPT's parameters: the same numbers.

Both have the same names. nanoGPT keeps matrices as torch's Linear does, (out, in), transformers'
GPT-2 in a Conv1D of its own, (in, out), as Flax does; all else is laid out alike. All keep queries,
keys and values side by side, in this order. The head, which may be listed as well, is the token
embedding.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from flax import nnx
from flax.traverse_util import flatten_dict, unflatten_dict

from gptjax.config.config import GPTConfig
from gptjax.model.gpt import GPT

HEAD, TOKENS = "lm_head.weight", "transformer.wte.weight"
POSITIONS = "transformer.wpe.weight"

# What nanoGPT calls the parts of our parameters' paths.
_PARTS = {
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

# A block's layers in the order in which nanoGPT makes them, with their weights' axes in widths.
_LAYERS = {
    "ln_1": (1,),
    "attn.c_attn": (3, 1),
    "attn.c_proj": (1, 1),
    "ln_2": (1,),
    "mlp.c_fc": (4, 1),
    "mlp.c_proj": (1, 4),
}

# torch.compile puts this before every name.
_COMPILED = "_orig_mod."

# Before PyTorch 2.0 nanoGPT kept its causal mask among the weights, and GPT-2s have it, too.
_MASK, _MASKED = ".attn.bias", ".attn.masked_bias"

# GPT-2s are kept with it, and without where no head was thought of.
_PREFIX = "transformer."


def shapes(config: GPTConfig, *, is_conv1d: bool = False) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of nanoGPT's parameters but the head, in the order of their making.

    With `is_conv1d` they are laid out as in transformers' GPT-2.
    """

    def layer(name: str, widths: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
        shape = tuple(width * config.n_embd for width in widths)
        yield f"transformer.{name}.weight", shape[::-1] if is_conv1d else shape
        if config.bias:
            yield f"transformer.{name}.bias", shape[:1]

    yield TOKENS, (config.vocab_size, config.n_embd)
    yield POSITIONS, (config.block_size, config.n_embd)
    for index in range(config.n_layer):
        for name, widths in _LAYERS.items():
            yield from layer(f"h.{index}.{name}", widths)
    yield from layer("ln_f", (1,))


def own_weights(stored: Mapping[str, np.ndarray], config: GPTConfig) -> dict[str, np.ndarray]:
    """The weights of a nanoGPT's state dict, in the order of `shapes`; its head is only looked at.

    Raises:
      ValueError: if one is missing, of another shape or none of nanoGPT's, or the head is not the
        embedding.
    """
    found = {
        str(name).removeprefix(_COMPILED): array
        for name, array in stored.items()
        if not str(name).endswith(_MASK)
    }
    weights = {}
    for name, shape in shapes(config):  # Ends soon, however many layers are claimed.
        if name not in found:
            raise ValueError(f"it has no {name}")
        weights[name] = found.pop(name)
        _check(name, weights[name], shape)
    head = found.pop(HEAD, weights[TOKENS])
    if found:
        raise ValueError(f"it has {next(iter(found))!r:.60}, which nanoGPT has not")
    _check(HEAD, head, weights[TOKENS].shape)
    if not np.array_equal(head, weights[TOKENS]):
        raise ValueError(f"its {HEAD} is not {TOKENS}, as in nanoGPT")
    return weights


def gpt2_names(stored: Iterable[str], config: GPTConfig) -> dict[str, str]:
    """What a GPT-2 with the names `stored` calls each of our weights, and its head if it has one.

    Raises:
      ValueError: if one is missing or none of a GPT-2's.
    """
    left = {name for name in stored if not name.endswith((_MASK, _MASKED))}
    is_bare = TOKENS not in left and TOKENS.removeprefix(_PREFIX) in left
    found = {}
    for name, _ in shapes(config):  # Ends soon, however many layers are claimed.
        found[name] = name.removeprefix(_PREFIX) if is_bare else name
        if found[name] not in left:
            raise ValueError(f"it has no {found[name]}")
        left.remove(found[name])
    if HEAD in left:
        found[HEAD] = HEAD
        left.remove(HEAD)
    if extra := sorted(left):
        raise ValueError(f"it has {extra[0]!r:.60}, which a GPT-2 has not")
    return found


def _check(name: str, array: object, shape: tuple[int, ...]) -> None:
    if not isinstance(array, np.ndarray):
        raise ValueError(f"its {name} is no tensor")
    if (array.shape, array.dtype) != (shape, np.float32):
        raise ValueError(f"{name} is {array.dtype} {array.shape}, and must be float32 {shape}")


def to_params(
    weights: Mapping[str, np.ndarray], config: GPTConfig, *, is_conv1d: bool = False
) -> nnx.State:
    """The parameters that the weights are; whatever has a number for each weight goes as well.

    Each is asked for once. With `is_conv1d` they are laid out as in transformers' GPT-2.

    Raises:
      ValueError: if one has another shape than the config calls for, or is not finite.
    """
    params = _empty(config)
    flat = flatten_dict(nnx.to_pure_dict(params))
    for path, wanted in flat.items():
        name = _name(path)
        array = weights[name]
        _check(name, array, wanted.shape[::-1] if _is_turned(path, is_conv1d) else wanted.shape)
        if not np.isfinite(array).all():
            raise ValueError(f"{name} holds numbers that are not finite")
        flat[path] = np.array(_turned(path, array, is_conv1d), order="C")
    nnx.replace_by_pure_dict(params, unflatten_dict(flat))
    return params


def from_params(
    params: nnx.State, config: GPTConfig, *, is_conv1d: bool = False
) -> dict[str, np.ndarray]:
    """The weights, in the order of `shapes`, that the parameters are; the head is left out."""
    found = {
        _name(path): np.array(_turned(path, np.asarray(leaf), is_conv1d), order="C")
        for path, leaf in flatten_dict(nnx.to_pure_dict(params)).items()
    }
    return {name: found[name] for name, _ in shapes(config)}


def _empty(config: GPTConfig) -> nnx.State:
    """The shapes of the parameters."""
    return nnx.split(nnx.eval_shape(lambda: GPT(config, rngs=nnx.Rngs(0))), nnx.Param, ...)[1]


def _name(path: tuple) -> str:
    return "transformer." + ".".join(_PARTS.get(str(part), str(part)) for part in path)


def _is_turned(path: tuple, is_conv1d: bool) -> bool:
    return path[-1] == "kernel" and not is_conv1d


def _turned(path: tuple, array: np.ndarray, is_conv1d: bool) -> np.ndarray:
    return array.T if _is_turned(path, is_conv1d) else array
