"""Which settings of two runs differ, as far as both are known. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from gptjax.explain.series import Series

# Settings that are one decision, by what a sentence calls it. A change of several at once cannot be
# told apart; one of these is the smallest step that a ladder takes.
GROUPS: Mapping[str, tuple[str, ...]] = {
    "corpus": ("corpus_sha256", "corpus", "data.val_fraction", "data.tokenizer", "vocab_size"),
    "model size": ("model.n_layer", "model.n_head", "model.n_embd"),
    "context": ("model.block_size",),
    "architecture": (
        "model.norm",
        "model.position",
        "model.mlp",
        "model.bias",
        "model.qk_norm",
        "model.tie_embeddings",
        "model.token_shift",
        "model.followers",
        "model.follower_rows",
        "model.zero_residual",
        "model.vocab_multiple",
    ),
    "batch": ("train.batch_size", "train.grad_accum_steps", "data.order"),
    "length": (
        "train.max_iters",
        "optim.lr_decay_iters",
        "optim.schedule",
        "optim.decay_share",
        "optim.warmup_iters",
    ),
    "dropout": ("model.dropout",),
    "learning rate": ("optim.learning_rate", "optim.min_lr", "optim.muon_learning_rate"),
    "optimizer": (
        "optim.name",
        "optim.beta1",
        "optim.beta2",
        "optim.weight_decay",
        "optim.grad_clip",
        "optim.muon_momentum",
    ),
    "precision": (
        "model.dtype",
        "model.param_dtype",
        "model.matmul_precision",
        "optim.master_weights",
    ),
    "seed": ("seed",),
    "device": ("device", "n_devices", "host_cores"),
    "program": ("program", "versions"),
}

# What changes a result by rounding at most.
MACHINE = frozenset({"device", "program"})


@dataclasses.dataclass(frozen=True)
class Difference:
    """A group of settings that differs: the values on both sides, by name."""

    group: str
    a: Mapping[str, Any]
    b: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Settings:
    """How two runs' settings compare.

    Attributes:
      differing: what is known of both and differs, in the order of GROUPS.
      equal: names known of both and equal.
      unknown: for each name known of one run only, or of neither, the labels that lack it.
    """

    differing: tuple[Difference, ...]
    equal: tuple[str, ...]
    unknown: Mapping[str, tuple[str, ...]]

    @property
    def causes(self) -> tuple[Difference, ...]:
        """Those that can move a loss by more than rounding."""
        return tuple(each for each in self.differing if each.group not in MACHINE)

    def of(self, group: str) -> Difference | None:
        """The difference in a group; None if it is equal or not known."""
        return next((each for each in self.differing if each.group == group), None)


def effective(series: Series) -> dict[str, Any]:
    """The settings of a run that are known, those that mean the same made the same."""
    names = [name for group in GROUPS.values() for name in group]
    found = {name: series.value(name) for name in names if name in series.facts}
    if found.get("optim.lr_decay_iters") in (0, found.get("train.max_iters")):
        found["optim.lr_decay_iters"] = "as max_iters"
    if found.get("optim.schedule") != "linear":
        found.pop("optim.decay_share", None)
    if found.get("optim.schedule") == "constant":
        found.pop("optim.lr_decay_iters", None)
        found.pop("optim.min_lr", None)
    if found.get("optim.name") == "adamw":
        found.pop("optim.muon_learning_rate", None)
        found.pop("optim.muon_momentum", None)
    if found.get("model.followers") == 0:
        found.pop("model.follower_rows", None)
    if found.get("model.param_dtype") == "float32":
        found.pop("optim.master_weights", None)
    if isinstance(found.get("versions"), Mapping):
        found["versions"] = ", ".join(f"{k} {v}" for k, v in sorted(found["versions"].items()))
    if "corpus_sha256" in found:  # Then its name is of no account.
        found.pop("corpus", None)
    return found


def compare_settings(a: Series, b: Series) -> Settings:
    """How the settings of two runs compare."""
    known_a, known_b = effective(a), effective(b)
    if ("corpus_sha256" in known_a) != ("corpus_sha256" in known_b):
        for known, series in ((known_a, a), (known_b, b)):
            known.pop("corpus_sha256", None)
            if "corpus" in series.facts:
                known["corpus"] = series.value("corpus")
    differing: list[Difference] = []
    equal: list[str] = []
    unknown: dict[str, tuple[str, ...]] = {}
    for group, names in GROUPS.items():
        changed: list[str] = []
        for name in names:
            lacking = tuple(s.label for s, k in ((a, known_a), (b, known_b)) if name not in k)
            if not lacking:
                (changed if known_a[name] != known_b[name] else equal).append(name)
            elif len(lacking) == 1 or (name in _EXPECTED and name not in a.facts):
                unknown[name] = lacking
        if changed:
            sides = ({name: known[name] for name in changed} for known in (known_a, known_b))
            differing.append(Difference(group, *sides))
    return Settings(tuple(differing), tuple(equal), unknown)


# What one wants to know of every run: missing on both sides it is missed all the same.
_EXPECTED = frozenset(
    "model.n_layer model.n_head model.n_embd model.block_size model.dropout train.batch_size "
    "train.max_iters optim.learning_rate seed corpus device".split()
)
