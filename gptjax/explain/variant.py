"""A checkpoint that goes on on one device, in one precision: a variant of scripts/replay.py."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from collections.abc import Iterator
from typing import NamedTuple

import jax
import ml_collections
import numpy as np

from gptjax.config.config import model_config
from gptjax.device.memory import check_memory
from gptjax.device.mesh import Layout
from gptjax.run.evaluator import Evaluator
from gptjax.run.feed import resident_ids
from gptjax.run.inputs import Inputs
from gptjax.system.errors import UserError
from gptjax.update.optim import optimizer
from gptjax.update.step import TrainState, model_graph, named_key, train_steps


class Precision(NamedTuple):
    """What a model computes in: a dtype, and JAX's name for how exact float32 products are.

    `tolerance` is how far rounding moves the loss of one batch at most, as a part of it: float32
    holds seven digits and the others three, and sums over a model lose a few of them.
    """

    dtype: str
    products: str
    tolerance: float


_PRECISIONS = {
    "float32": Precision("float32", "highest", 1e-4),
    "tf32": Precision("float32", "default", 1e-2),  # As the device multiplies unless told not to.
    "bfloat16": Precision("bfloat16", "default", 1e-2),
}


def specs_of(devices: str) -> list[str]:
    """The variants that `--devices` lists, each `PLATFORM[:PRECISION]`.

    Raises:
      UserError: if one is not of that form, or there is but one.
    """
    specs = devices.split(",")
    for spec in specs:
        platform, colon, precision = spec.partition(":")
        if platform not in ("cpu", "cuda") or (colon and precision not in _PRECISIONS):
            rule = f"must be cpu or cuda, as it is or with :{' or :'.join(_PRECISIONS)}"
            raise UserError("--devices", repr(spec), rule)
    if len(specs) < 2:
        raise UserError("--devices", devices, "must list two or more", "Try cpu,cpu:bfloat16.")
    return specs


def device_of(spec: str) -> jax.Device:
    """The first device of a spec's platform; raises UserError where there is none."""
    platform = spec.partition(":")[0]
    try:
        # JAX calls CUDA devices "gpu".
        return jax.devices("gpu" if platform == "cuda" else platform)[0]
    except RuntimeError as error:
        asked = os.environ.get("JAX_PLATFORMS", "")
        rule, fix = f"no {platform} device here; have: {jax.default_backend()}", ""
        if asked:
            rule, fix = f"JAX_PLATFORMS={asked} keeps it out of reach", "Unset JAX_PLATFORMS."
        raise UserError("--devices", spec, rule, fix) from error


class Variant:
    """The state on the device, and the compiled functions that take it on from there.

    Attributes:
      spec: what `--devices` calls it.
      precision_name, precision: what it computes in, by default the run's own dtype.
      state: the TrainState; `update` replaces it.
    """

    def __init__(
        self,
        spec: str,
        config: ml_collections.ConfigDict,
        state: TrainState,
        inputs: Inputs,
        *,
        n_micro: int,
    ):
        """Raises UserError if the model does not fit the device."""
        self.spec, self.device, self._n_micro = spec, device_of(spec), n_micro
        self.precision_name = spec.partition(":")[2] or config.model.dtype
        self.precision = _PRECISIONS[self.precision_name]
        block_size = config.model.block_size
        # The same attention on every device.
        model = dataclasses.replace(
            model_config(config, inputs.tokenizer.vocab_size),
            dtype=self.precision.dtype,
            attention="xla",
            attention_rows=block_size,
        )
        check_memory(model, self.device, micro_batch=config.train.batch_size // n_micro)
        with self._here():
            graph = model_graph(model)
            dropout_key = named_key(config.seed, "dropout") if config.model.dropout else None
            # Not donated: on a CPU the first state is the checkpoint's own memory.
            self._train_steps = jax.jit(
                functools.partial(train_steps, graph, optimizer(config), dropout_key, block_size)
            )
            self._evaluator = Evaluator(model, block_size, Layout([self.device]))
            self._train_ids = jax.device_put(resident_ids(inputs)[0], self.device)
            self.state = jax.device_put(state, self.device)

    def update(self, offsets_B: np.ndarray) -> dict[str, jax.Array]:
        """Starts an update, without waiting for it; "loss" and "grad_norm", axis K of one."""
        offsets_KAB = offsets_B.reshape(1, self._n_micro, -1)
        with self._here():
            self.state, metrics_K = self._train_steps(
                self._train_ids, self.state, offsets_KAB, np.int32(1)
            )
        return metrics_K

    def losses(self, ids: np.ndarray, offsets_W: np.ndarray) -> np.ndarray:
        """The present weights' mean loss of each window, in this precision, nats per token."""
        with self._here():
            ids_here = jax.device_put(ids, self.device)
            return self._evaluator.losses(self.state.params, ids_here, offsets_W)

    @contextlib.contextmanager
    def _here(self) -> Iterator[None]:
        """What is traced and called inside has this device and these products."""
        products = jax.default_matmul_precision(self.precision.products)
        with jax.default_device(self.device), products:
            yield
