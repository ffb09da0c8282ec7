"""How tokens get to the devices: all of them once, or the windows of each call as it comes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import jax
import ml_collections
import numpy as np
from flax import nnx

from gptjax.data.mapped import AnyIds, MappedIds
from gptjax.data.splits import Splits
from gptjax.device.mesh import Layout
from gptjax.run.evaluator import Evaluator, random_windows
from gptjax.run.inputs import Inputs
from gptjax.system.errors import RunError, UserError

# So many bytes of tokens, and so many tokens, are put on each device as they are: where a window
# starts is an int32 there. Of more, the host gathers what each call needs.
_MOST_RESIDENT_BYTES = 2**30
_MOST_RESIDENT_TOKENS = 2**31 - 1

# Windows that go to the devices with one call, bytes: no copy of them takes long.
_CALL_BYTES = 2**21

# Updates whose windows the thread gathers in one go, at most.
_MOST_IN_BLOCK = 16


class Call(NamedTuple):
    """What a call of the compiled update reads: tokens, and where its windows start in them."""

    tokens: jax.Array
    offsets_KAB: jax.Array


@dataclasses.dataclass(frozen=True)
class CallLayout:
    """How a call's arrays lie: K updates of A micro-batches of B sequences, split over devices."""

    devices: Layout
    shape_KAB: tuple[int, int, int]

    def placed(self, offsets_KB: np.ndarray) -> jax.Array:
        """The windows of up to K updates, a row an update, on the devices."""
        offsets_KAB = np.zeros(self.shape_KAB, np.int32)
        offsets_KAB[: len(offsets_KB)] = offsets_KB.reshape(-1, *self.shape_KAB[1:])
        return self.devices.split(offsets_KAB)

    def own_windows(self) -> np.ndarray | slice:
        """Which of an update's windows the devices of this process read."""
        _, n_micro, size = self.shape_KAB
        parts = self.devices.split_last_axis(3).addressable_devices_indices_map(self.shape_KAB)
        slices = [index[-1] for index in parts.values() if index is not None]
        own_B = sorted({b for part in slices for b in range(*part.indices(size))})
        if len(own_B) == size:
            return slice(None)
        return (np.arange(n_micro)[:, None] * size + np.array(own_B)).reshape(-1)


def is_resident(inputs: Inputs) -> bool:
    """Whether all tokens are put on the devices."""
    n_tokens = sum(inputs.n_tokens.values())
    return n_tokens <= _MOST_RESIDENT_TOKENS and inputs.n_bytes <= _MOST_RESIDENT_BYTES


def most_updates(config: ml_collections.ConfigDict, inputs: Inputs, most: int) -> int:
    """Updates in a call: `most`, or those whose windows go to the devices together."""
    if is_resident(inputs):
        return most
    length = config.model.block_size + 1
    update_bytes = config.train.batch_size * length * inputs.splits.train.dtype.itemsize
    return max(1, min(most, _CALL_BYTES // update_bytes))


def device_bytes(config: ml_collections.ConfigDict, inputs: Inputs, n_updates: int) -> int:
    """Memory that tokens take on a device in calls of `n_updates`."""
    if is_resident(inputs):
        return inputs.n_bytes
    length = config.model.block_size + 1
    return n_updates * config.train.batch_size * length * inputs.splits.train.dtype.itemsize


def resident_ids(inputs: Inputs) -> tuple[np.ndarray, np.ndarray]:
    """Train's and val's ids, to be put on a device for good.

    Raises:
      UserError: if they are more than are put there.
    """
    if not is_resident(inputs):
        raise UserError(
            "data.source",
            inputs.corpus.name,
            f"has {inputs.corpus.size}, and this command holds at most 1 GiB of them on the device",
            "Give a part of it.",
        )
    return np.asarray(inputs.splits.train), np.asarray(inputs.splits.val)


def feed(config: ml_collections.ConfigDict, inputs: Inputs, lay: CallLayout) -> Feed:
    """What gives each call its tokens."""
    if is_resident(inputs):
        return Resident(config, inputs.splits, lay)
    return Gathered(config, inputs, lay)


class Resident:
    """All tokens lie on the devices, val behind train: a call brings offsets alone.

    Attributes:
      tokens: what updates read, as an array or as its shape.
    """

    def __init__(self, config: ml_collections.ConfigDict, splits: Splits, lay: CallLayout):
        self._config, self._lay, self._n_train = config, lay, len(splits.train)
        # One array for both splits: one compiled evaluation serves both.
        self.tokens = lay.devices.copied(splits.joined)

    def evaluated(self, n_windows: int) -> tuple[jax.Array, int]:
        """What an evaluation of `n_windows` reads, and of how many of them at once."""
        return self.tokens, n_windows

    def call(self, first: int, n_updates: int) -> Call:
        """The batches of `n_updates` updates from update `first` on."""
        offsets_KB = random_windows(self._config, "train", self._n_train, first, n_updates)
        return Call(self.tokens, self._lay.placed(offsets_KB))

    def losses(
        self, evaluator: Evaluator, params: nnx.State, windows: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """The loss of each window of each split, nats per token."""
        train_W, val_W = windows["train"], windows["val"]
        offsets_W = np.concatenate([train_W, val_W + self._n_train])
        losses_W = evaluator.losses(params, self.tokens, offsets_W)
        return {"train": losses_W[: len(train_W)], "val": losses_W[len(train_W) :]}


class Gathered:
    """Tokens stay in their files; a call brings its windows, gathered while the last one ran.

    The same programs as above, whose tokens are those of a call: its windows, one behind another.

    Attributes: as Resident's.
    """

    def __init__(self, config: ml_collections.ConfigDict, inputs: Inputs, lay: CallLayout):
        self._config, self._lay = config, lay
        self._name, self._vocab_size = inputs.corpus.name, inputs.tokenizer.vocab_size
        self._ids = {"train": _mapped(inputs.splits.train), "val": _mapped(inputs.splits.val)}
        self._length = config.model.block_size + 1
        n_updates, n_micro, size = lay.shape_KAB
        self._n_windows, self._own = n_micro * size, lay.own_windows()
        starts_KB = np.arange(n_updates * self._n_windows).reshape(n_updates, -1) * self._length
        self._offsets = lay.placed(starts_KB)
        self.tokens = self._shape(n_updates * self._n_windows)
        self._ahead = Ahead(self._batches, n_updates)

    def _shape(self, n_windows: int) -> jax.ShapeDtypeStruct:
        size = (n_windows * self._length,)
        return jax.ShapeDtypeStruct(size, self._dtype, sharding=self._lay.devices.replicated)

    def evaluated(self, n_windows: int) -> tuple[jax.ShapeDtypeStruct, int]:
        """What an evaluation of `n_windows` reads, and of how many of them at once."""
        window_bytes = self._length * self._dtype.itemsize
        n_at_once = max(1, min(n_windows, _CALL_BYTES // window_bytes))
        return self._shape(n_at_once), n_at_once

    def call(self, first: int, n_updates: int) -> Call:
        """The batches of `n_updates` updates from update `first` on."""
        ids_KBT = np.zeros((self._lay.shape_KAB[0], self._n_windows, self._length), self._dtype)
        # What other processes' devices read stays 0 here: each host reads its part of the files.
        ids_KBT[:n_updates, self._own] = self._ahead.take(first, n_updates)
        tokens = self._lay.devices.copied(ids_KBT.reshape(-1))
        return Call(tokens, self._offsets)

    def losses(
        self, evaluator: Evaluator, params: nnx.State, windows: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """The loss of each window of each split, nats per token."""
        _, n_at_once = self.evaluated(sum(map(len, windows.values())))
        starts_W = np.arange(n_at_once) * self._length
        found = {}
        for split, offsets_W in windows.items():
            losses_W = np.empty(len(offsets_W))
            for first in range(0, len(offsets_W), n_at_once):
                part_W = offsets_W[first : first + n_at_once]
                ids_WT = np.zeros((n_at_once, self._length), self._dtype)
                ids_WT[: len(part_W)] = self._windows(split, part_W)
                tokens = self._lay.devices.copied(ids_WT.reshape(-1))
                part_losses_W = evaluator.losses(params, tokens, starts_W)
                losses_W[first : first + n_at_once] = part_losses_W[: len(part_W)]
            found[split] = losses_W
        return found

    @property
    def _dtype(self) -> np.dtype:
        return self._ids["train"].dtype

    def _batches(self, first: int, n_updates: int) -> np.ndarray:
        """The windows of updates that are read here, axes KBT."""
        n_tokens = len(self._ids["train"])
        offsets_KB = random_windows(self._config, "train", n_tokens, first, n_updates)
        own_KB = offsets_KB[:, self._own]
        return self._windows("train", own_KB.reshape(-1)).reshape(n_updates, -1, self._length)

    def _windows(self, split: str, offsets_W: np.ndarray) -> np.ndarray:
        """The ids of windows, each of which is looked at before it is used."""
        ids_WT = self._ids[split].windows(offsets_W, self._length)
        if ids_WT.size and (highest := int(ids_WT.max())) >= self._vocab_size:
            raise RunError(
                f"{self._name}: {split} has the id {highest}, and the vocabulary "
                f"{self._vocab_size} ids; prepare it anew"
            )
        return ids_WT


Feed = Resident | Gathered


class Ahead:
    """Arrays of updates, made in order by a thread before they are asked for."""

    def __init__(self, make: Callable[[int, int], np.ndarray], n_ahead: int):
        """`make(first, n)` makes those of `n` updates; so many are kept ready."""
        self._make, self._n_ahead, self._size = make, n_ahead, min(_MOST_IN_BLOCK, n_ahead)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._blocks: dict[int, Future[np.ndarray]] = {}

    def take(self, first: int, n_updates: int) -> np.ndarray:
        """Those of updates `first` on; what comes behind them is begun."""
        end, size = first + n_updates, self._size
        blocks = range(first // size, -(-end // size))
        self._blocks = {block: made for block, made in self._blocks.items() if block >= blocks[0]}
        for block in range(blocks[0], -(-(end + self._n_ahead) // size)):
            if block not in self._blocks:
                made = self._pool.submit(self._make, block * size, size)
                self._blocks[block] = made
        joined = np.concatenate([self._blocks[block].result() for block in blocks])
        return joined[first - blocks[0] * size :][:n_updates]


def _mapped(ids: AnyIds) -> MappedIds:
    return ids if isinstance(ids, MappedIds) else MappedIds([ids])
