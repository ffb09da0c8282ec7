"""Texts continued by a model: its generating functions, compiled once, called in turns."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from flax import nnx

from gptjax.config.config import GPTConfig
from gptjax.model import generate
from gptjax.model.caches import empty_caches
from gptjax.model.generate import DecodeState
from gptjax.system.programs import Program, Source
from gptjax.update.step import model_graph, named_key


class Continuation:
    """Continues a text `num_samples` times, with any weights of one model."""

    def __init__(
        self,
        model: GPTConfig,
        device: jax.Device,
        *,
        num_samples: int,
        top_k: int,
        n_slots: int,
        n_symbols: int,
    ):
        """Tokens come up to `n_slots` at a time; only the first `n_symbols` are ever drawn."""
        self._model, self._device, self._num_samples = model, device, num_samples
        self._settings = dict(n_slots=n_slots, top_k=top_k, n_symbols=n_symbols)
        self._compiled: dict[Callable[..., Any], Program] = {}

    def tokens(
        self,
        params: nnx.State,
        ids: np.ndarray,
        *,
        seed: int,
        max_new_tokens: int,
        temperature: float,
        stride: int,
    ) -> Iterator[np.ndarray]:
        """Yields the tokens that follow `ids` in each of the texts, some at a time.

        Each array has axes B and up to n_slots; sample b's i-th token depends on the seed, b and i
        alone: neither on how many samples there are nor on how they are cut into arrays. `params`
        lie on the device.
        """
        block_size, n_slots = self._model.block_size, self._settings["n_slots"]
        window_BT, length = generate.pad_prompt(
            ids, block_size=block_size, batch_size=self._num_samples
        )
        state, n_done = self._prefilled(params, window_BT, length, 0), 0
        while n_done < max_new_tokens:
            if length == block_size and stride > 1:
                window_BT = np.pad(np.asarray(state.window_BT)[:, stride:], ((0, 0), (0, stride)))
                length -= stride
                state = self._prefilled(params, window_BT, length, n_done)
            is_full = length == block_size
            room = n_slots if is_full else block_size - length
            n_tokens = min(room, n_slots, max_new_tokens - n_done)
            state, tokens_BK = self._decoded(
                generate.decode_sliding if is_full else generate.decode,
                *(params, state, np.uint32(seed), np.int32(n_tokens), np.float32(temperature)),
            )
            length += 0 if is_full else n_tokens
            n_done += n_tokens
            yield np.asarray(tokens_BK)[:, :n_tokens]

    def _prefilled(
        self, params: nnx.State, window_BT: np.ndarray, length: int, n_new: int
    ) -> DecodeState:
        model = self._model

        def prefill(params, window_BT, length, n_new):
            return generate.prefill(model_graph(model), model, params, window_BT, length, n_new)

        # The length is an argument, so that prompts of any length share one program.
        arguments = (params, window_BT, np.int32(length), np.int32(n_new))
        return self._call(generate.prefill, prefill, arguments, self._state)

    def _decoded(self, function: Callable[..., Any], *arguments: Any) -> Any:
        model, settings = self._model, self._settings

        def decode(params, state, seed, n_tokens, temperature):
            key = named_key(seed, "sample")
            graph = model_graph(model)
            return function(graph, params, state, key, n_tokens, temperature, **settings)

        return self._call(function, decode, arguments, (self._state, 0), donated=(1,))

    def _call(
        self,
        named: Callable[..., Any],
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        returns: Any,
        **settings: Any,
    ) -> Any:
        """What a function returns, which is compiled if it is the first time."""
        if named not in self._compiled:
            made_of = [named.__name__, dataclasses.asdict(self._model), self._settings]
            source = Source(
                function, arguments, returns, made_of=made_of, device=self._device, **settings
            )
            self._compiled[named] = source.compile()
        return self._compiled[named](*arguments)

    @functools.cached_property
    def _state(self) -> DecodeState:
        """The structure of what goes from one call to the next."""
        caches: Any = jax.eval_shape(lambda: empty_caches(self._model, self._num_samples))
        return DecodeState(0, 0, 0, 0, caches)  # type: ignore[arg-type]
