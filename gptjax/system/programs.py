"""Compiled programs, and what tracing gives of them, kept between runs.

Python traces a program, XLA compiles it; either takes seconds. What XLA compiles, JAX keeps
(cache.keep_compiled_programs). What is traced is kept here: StableHLO, in which there is nothing of
Python's to be run. On a CPU only: elsewhere a program may call libraries whose versions nothing in
it tells.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import flax
import jax
import jaxlib
import numpy as np
import optax

from gptjax.system import cache
from gptjax.system.interrupt import runs_script_of_ours
from gptjax.system.traced import Traced, shapes, traced

# Some 50 kB a program: a thousand of them. Each change of gptjax or of a recipe makes new ones.
_MOST_BYTES_KEPT = 50_000_000

# A trial holds arguments of its own.
_MOST_BYTES_TRIED = 2**28


class Program:
    """A compiled function; it takes arrays of the shapes that it was compiled for.

    Attributes:
      executable: as XLA compiled it; its arguments are those of the function, flattened.
    """

    def __init__(self, executable: jax.stages.Compiled, returns: Any):
        """`returns` is the structure of what comes back."""
        self.executable, self._returns = executable, returns

    def __call__(self, *arguments: Any) -> Any:
        """What the function returns."""
        return jax.tree.unflatten(self._returns, self.executable(*jax.tree.leaves(arguments)))


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """What a program is compiled from.

    Attributes:
      function: a pure function of trees of arrays that returns such a tree.
      arguments: what it will be called with, arrays or their shapes.
      returns: a tree of the same structure as what comes back.
      made_of: all that the function is made from, as JSON has it: where that, the arguments'
        shapes, gptjax, JAX and its settings are the same, the same is traced.
      donated: the arguments whose memory may be used for what comes back.
      device: what it is compiled for; None: the devices on which the arguments say they lie.
      out_shardings: as jax.jit takes them, where there is no such device.
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    returns: Any
    made_of: Any
    donated: tuple[int, ...] = ()
    device: jax.Device | None = None
    out_shardings: Any = None

    @property
    def can_be_kept(self) -> bool:
        """Whether what is traced will be there at the next start."""
        return self._is_on_cpu and self._path is not None and cache.can_be_written(self._path)

    @property
    def is_kept(self) -> bool:
        """Whether it has been traced before, so that XLA has most likely compiled it, too."""
        return self._is_on_cpu and self._kept is not None

    def compile(self) -> Program:
        """The compiled function; what is kept of it is used if it is whole and what is wanted."""
        return self.lower()()

    def lower(self) -> Callable[[], Program]:
        """As `compile` up to XLA's part, which is to be called and needs next to no Python."""
        with jax.default_device(self.device):
            if self._is_on_cpu:
                # Also what has just been traced: the program is the same to the bit at each start.
                jitted = self._jitted((self._kept or self._traced()).call)
            else:
                jitted = self._jitted(self._flat, out_shardings=self.out_shardings)
            lowered = jitted.lower(*jax.tree.leaves(self.arguments))
        return lambda: Program(lowered.compile(), jax.tree.structure(self.returns))

    @property
    def _is_on_cpu(self) -> bool:
        return self.device is not None and self.device.platform == "cpu"

    def _flat(self, *leaves: Any) -> list[Any]:
        """The function from arrays to arrays."""
        arguments = jax.tree.unflatten(jax.tree.structure(self.arguments), leaves)
        returned = self.function(*arguments)
        found: Any = jax.tree.structure(returned)
        wanted: Any = jax.tree.structure(self.returns)
        if found != wanted:
            raise TypeError(f"{found} came back, not {wanted}")
        return jax.tree.leaves(returned)

    def _jitted(self, function: Callable[..., Any], **settings: Any) -> Any:
        sizes = [len(jax.tree.leaves(argument)) for argument in self.arguments]
        firsts = [sum(sizes[:index]) for index in range(len(sizes))]
        donated = [n for i in self.donated for n in range(firsts[i], firsts[i] + sizes[i])]
        return jax.jit(function, donate_argnums=donated, **settings)

    def _traced(self) -> Traced:
        """Traces it and keeps that."""
        jitted = self._jitted(self._flat, keep_unused=True)
        lowered = jitted.lower(*jax.tree.leaves(self.arguments))
        found = traced(lowered)
        if path := self._path:
            content = json.dumps(found.returns).encode() + b"\n" + found.code
            cache.keep(path, self._digest(content) + content)
            cache.prune(path.parent, most_bytes=_MOST_BYTES_KEPT)
        return found

    @functools.cached_property
    def _kept(self) -> Traced | None:
        """What is kept, if it is whole and this program's."""
        try:
            content = self._path.read_bytes() if self._path else b""
        except OSError:
            return None
        if content[:32] != self._digest(content[32:]):
            return None
        header, _, code = content[32:].partition(b"\n")
        return Traced(code, tuple((tuple(shape), dtype) for shape, dtype in json.loads(header)))

    def _digest(self, written: bytes) -> bytes:
        """Of the program and what it is made of: another's file is as good as none."""
        return hashlib.sha256(self._key.encode() + written).digest()

    @property
    def _path(self) -> Path | None:
        # Another program may have changed what is traced in ways that the key knows nothing of.
        is_known = runs_script_of_ours() and cache.source_digest()
        folder = cache.programs_folder() if is_known else None
        return folder / "traced" / self._key[:40] if folder else None

    @functools.cached_property
    def _key(self) -> str:
        versions = [jax.__version__, jaxlib.__version__, flax.__version__, optax.__version__]
        versions += sorted(
            f"{name}={value}" for name, value in os.environ.items() if "FLAX" in name
        )
        # As they are in this thread: some are set for a while only. The device is the CPU.
        settings = {
            name: str(getattr(jax.config, name, value))
            for name, value in sorted(jax.config.values.items())
            if name != "jax_default_device" and "_cache_" not in name
        }
        written = [
            self.made_of,
            shapes(self.arguments),
            self.donated,
            cache.source_digest(),
            versions,
            settings,
        ]
        written += [cache.processor("flags"), cache.n_cores()]
        return hashlib.sha256(json.dumps(written).encode()).hexdigest()


def compile_all(
    sources: Sequence[Source], tried: Sequence[Source], *, meanwhile: Callable[[], object]
) -> list[Program]:
    """The programs of `sources`, compiled one after the other: XLA uses all cores for each.

    Python traces the next meanwhile. Those in `tried` are also called once, with zeros for what
    are only shapes and 1 for the last argument, a count: XLA builds a CPU's kernels in the first
    call of a program, with one core, while Python does what is to be done `meanwhile`.
    """
    with ThreadPoolExecutor(1) as compiling, ThreadPoolExecutor(2) as trying:

        def compiled(source: Source, finish: Callable[[], Program]) -> Program:
            program = finish()
            if source in tried:
                trials.append(trying.submit(_try, program, source))
            return program

        trials: list[Future[None]] = []
        programs = [compiling.submit(compiled, source, source.lower()) for source in sources]
        if all(source.is_kept for source in sources):
            # Loading takes Python, too, now and then, and would wait for what is done meanwhile.
            concurrent.futures.wait(programs)
        meanwhile()
        found = [program.result() for program in programs]
        for trial in trials:
            trial.result()
    return found


def _try(program: Program, source: Source) -> None:
    """Fails silently: what is wrong with a program is told by its first call that matters."""
    needed: Any = program.executable.memory_analysis()
    if needed.argument_size_in_bytes + needed.temp_size_in_bytes > _MOST_BYTES_TRIED:
        return

    def zeros(leaf: Any) -> Any:
        return leaf if isinstance(leaf, jax.Array) else np.zeros(leaf.shape, leaf.dtype)

    with contextlib.suppress(jax.errors.JaxRuntimeError, MemoryError):
        arguments = jax.tree.map(zeros, source.arguments[:-1])
        jax.block_until_ready(program(*arguments, np.int32(1)))
