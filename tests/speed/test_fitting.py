"""The smallest change that fits, among made-up needs."""

import pytest
import tiny

from gptjax.run.footprint import Footprint
from gptjax.speed.fitting import micro_batches_below, smallest_change

WEIGHTS, OF_A_SEQUENCE = 100, 10


def footprint(config, n_devices=1) -> Footprint:
    """Twelve sequences; a state split by mesh.fsdp; remat halves the rest."""
    tokens = config.train.tokens_at_once or 10**9
    micro_batch = min(12 // n_devices, tokens // config.model.block_size)
    each = OF_A_SEQUENCE // (2 if config.model.remat else 1)
    return Footprint(
        weights=WEIGHTS // config.mesh.fsdp,
        optimizer=2 * WEIGHTS // config.mesh.fsdp,
        gradients=WEIGHTS // config.mesh.fsdp,
        activations=each * micro_batch,
        data=0,
        windows=0,
        n_micro=12 // micro_batch,
        micro_batch=micro_batch,
        whole_state=3 * WEIGHTS,
    )


def change(available, n_devices=1):
    config = tiny.config(train__batch_size=12)
    compiled = []

    def needed(config):
        compiled.append(config)
        return footprint(config, n_devices)

    now = footprint(config, n_devices)
    found = smallest_change(config, now, needed, available=available, n_devices=n_devices)
    return found, len(compiled)


@pytest.mark.parametrize(
    ("available", "words"),
    [
        (465, "--config.train.tokens_at_once=42"),  # 6 sequences of 7
        (455, "--config.train.tokens_at_once=28"),
        (410, "--config.train.tokens_at_once=7"),
        (405, "--config.model.remat=true --config.train.tokens_at_once=7"),
    ],
)
def test_the_largest_micro_batch_that_fits(available, words):
    found, n_compiled = change(available)
    assert found.in_words() == words and found.footprint.total <= available
    assert n_compiled <= 8


def test_nothing_fits():
    assert change(404) == (None, 6) or change(404)[0] is None
    assert change(399) == (None, 0), "a state that does not fit is not compiled for"


def test_a_state_that_is_too_large_is_split():
    found, _ = change(300, n_devices=4)
    assert found.knobs == {"mesh.data": 2, "mesh.fsdp": 2}
    found, _ = change(106, n_devices=4)
    assert found.knobs["mesh.fsdp"] == 4 and found.knobs["model.remat"] is True


def test_micro_batches():
    assert micro_batches_below(12) == [6, 4, 3, 2, 1]
    assert micro_batches_below(7) == [1] and micro_batches_below(1) == []
