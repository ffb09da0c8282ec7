"""Fifteen pairs of real small runs that differ in one known thing: each is told first, no other.

docs/compare.md has the table that this test holds.
"""

import dataclasses
import functools
import json
from unittest import mock

import jax.numpy as jnp
import pytest
import runs

from gptjax import compare as compare_module
from gptjax.data.synthetic import write_play
from gptjax.update import step

pytestmark = pytest.mark.slow

BASE = dict(
    data__source="synthetic",
    model__n_embd=32,
    model__block_size=16,
    model__dropout=0.0,
    train__batch_size=8,
    train__max_iters=200,
    optim__warmup_iters=20,
    optim__learning_rate=3e-3,
    eval__interval=50,
    eval__max_tokens=32_768,
)


@dataclasses.dataclass(frozen=True)
class Planted:
    """What the second run has otherwise, and what must be told first: a kind, with a group."""

    kind: str
    group: str = ""
    knobs: dict = dataclasses.field(default_factory=dict)
    base: dict = dataclasses.field(default_factory=dict)


SMALL = dict(train__max_iters=100, eval__interval=25)

PLANTED = {
    "steps": Planted("only_one", "length", dict(train__max_iters=400)),
    "batch": Planted("only_one", "batch", dict(train__batch_size=32)),
    "batch, tokens equal": Planted(
        "batch_at_equal_tokens", "", dict(train__batch_size=32, train__max_iters=50)
    ),
    "context": Planted("only_one", "context", dict(model__block_size=64)),
    "dropout": Planted("only_one", "dropout", dict(model__dropout=0.5)),
    "precision": Planted("only_precision", "precision", dict(model__dtype="bfloat16")),
    "devices": Planted("only_machine", "", dict(mesh__data=2), dict(mesh__data=1)),
    "text": Planted("other_text", "", dict(data__source="text")),
    "learning rate": Planted("only_one", "learning rate", dict(optim__learning_rate=3e-2)),
    "seed": Planted("only_seed", "", dict(seed=7)),
    "overfitting": Planted(
        "overfitted",
        "",
        dict(train__max_iters=1000, eval__interval=100),
        dict(data__source="text", eval__max_tokens=0, data__val_fraction=0.5, model__n_embd=96),
    ),
    "targets shifted": Planted("suspected_bug"),
    "loss scaled": Planted("suspected_bug"),
    "busy machine": Planted("slower"),
    "nothing": Planted("identical"),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A function that trains a run with these knobs once: its directory."""
    folder = tmp_path_factory.mktemp("planted")
    (folder / "short.txt").write_text(write_play().text[:3000])

    @functools.cache
    def train(name, knobs):
        knobs = BASE | dict(knobs)
        if knobs["data__source"] == "text":
            knobs["data__source"] = f"text:{folder / 'short.txt'}"
        runs.start(runs.settings(folder, **knobs), folder / name)
        return folder / name

    return lambda name, knobs: train(name, tuple(sorted(knobs.items())))


BUGS = {
    "targets shifted": lambda tokens, offsets, size: (WINDOWS(tokens, offsets, size)[0],) * 2,
    "loss scaled": lambda *arguments: 0.8 * jnp.asarray(LOSSES(*arguments)),
}
WINDOWS, LOSSES = step.windows, step.next_token_losses


@pytest.mark.parametrize("name", PLANTED)
def test_what_was_planted_is_told_first(trained, tmp_path, name):
    planted = PLANTED[name]
    base_name = "base" if not planted.base else f"base of {name}"
    base = trained(base_name, planted.base)
    if name in BUGS:
        part = "windows" if name == "targets shifted" else "next_token_losses"
        with mock.patch.object(step, part, BUGS[name]):
            other = trained(name, planted.knobs)
    else:
        other = trained(name, planted.base | planted.knobs)
    if name == "busy machine":
        slow_down(other / "metrics.jsonl")
    told = first_findings(base, other, tmp_path / "found.json")
    kinds = [each["kind"] for each in told]
    if name == "busy machine":
        assert kinds[0] == "identical"
        kinds = kinds[1:]
    within_noise = {f"{planted.kind}_noise", "only_one_noise" if planted.group else ""}
    assert kinds[0] in {planted.kind} | within_noise, kinds
    assert told[0]["values"].get("group", planted.group) == planted.group or not planted.group
    # None gets a cause that is not there.
    causes = {"only_one", "only_seed", "only_precision", "suspected_bug", "other_text"}
    causes |= {"experiments", "batch_at_equal_tokens", "only_machine"}
    allowed = {planted.kind} | ({"only_one"} if name == "overfitting" else set())
    assert set(kinds) & causes <= allowed, kinds


def first_findings(a, b, path):
    compare_module.compare(
        [str(a), str(b)], device=(), peak=(), json=str(path), html=None, png=None
    )
    (comparison,) = json.loads(path.read_text())["comparisons"]
    return comparison["findings"]


def slow_down(log):
    """As another program would have: every update took three times as long."""
    records = [json.loads(line) for line in log.read_text().splitlines()]
    for record in records:
        if record["kind"] == "ledger":
            for name in ("step_ms_median", "step_ms_p95"):
                record[name] *= 3
    log.write_text("".join(json.dumps(record) + "\n" for record in records))
