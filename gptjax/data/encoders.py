"""Processes that turn blocks of documents into ids."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, NamedTuple, TypeVar

import numpy as np

from gptjax.data import texts
from gptjax.data.documents import Block, documents
from gptjax.data.tokenizer import TextTokenizer
from gptjax.system.errors import RunError

Result = TypeVar("Result")

# Ctrl-C ends the process at once. Python then removes its semaphores, and would warn of each.
_NO_WORD_OF_SEMAPHORES = "ignore:resource_tracker:UserWarning"

# Blocks that wait for each process, and results that wait for us.
_AHEAD = 3


class Encoded(NamedTuple):
    """A block's ids, where in them documents begin, and how many documents had no text."""

    ids: np.ndarray
    starts: np.ndarray
    n_empty: int


@dataclasses.dataclass(frozen=True)
class Encoder:
    """What turns a block into ids: behind each document come those of `separator`."""

    tokenizer: TextTokenizer
    field: str
    separator: np.ndarray

    def __call__(self, block: Block) -> Encoded:
        """The block's ids.

        Raises:
          UserError: for what is no document or has no id.
        """
        found = list(documents(block, self.field))
        written = [text for text in found if text]
        if block.kind == "text":
            parts = [self.tokenizer.encode(text, what=block.path) for text in written]
            starts = [0] * (block.begins and bool(parts))
            parts += [self.separator] * block.ends
        else:
            parts = []
            for ids in self.tokenizer.encode_batch(written):
                parts += [ids, self.separator]
            ends = np.cumsum([len(part) for part in parts])
            starts = [0, *ends[1:-1:2].tolist()] if parts else []
        joined = np.concatenate([self.separator[:0], *parts])
        return Encoded(joined, np.array(starts, np.int64), len(found) - len(written))


@dataclasses.dataclass(frozen=True)
class SymbolsOf:
    """What finds the distinct characters of a block."""

    field: str

    def __call__(self, block: Block) -> str:
        """They, in order; raises as above."""
        symbols = texts.Symbols()
        for text in documents(block, self.field):
            symbols.add(text)
        return symbols.found


# What this process does, if it is one that was begun here.
_works: list[Callable[[Block], Any]] = []


def _begin(work: Callable[[Block], Any]) -> None:
    """Makes a process ready: what it does is `work`; it ends with the process that started it."""
    _works.append(work)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started us.
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _done(block: Block) -> Any:
    return _works[0](block)


def in_order(
    work: Callable[[Block], Result], blocks: Iterable[Block], n_processes: int
) -> Iterator[tuple[Block, Result]]:
    """Each block with what `work` makes of it in one of several processes, in the blocks' order.

    Raises:
      RunError: if a process is killed.
    """
    # A library's own threads would be as many again.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    filters = [each for each in os.environ.get("PYTHONWARNINGS", "").split(",") if each]
    if _NO_WORD_OF_SEMAPHORES not in filters:
        os.environ["PYTHONWARNINGS"] = ",".join([*filters, _NO_WORD_OF_SEMAPHORES])
    pool = ProcessPoolExecutor(
        n_processes, multiprocessing.get_context("spawn"), initializer=_begin, initargs=(work,)
    )
    waiting: deque[tuple[Block, Future[Result]]] = deque()
    try:
        for block in blocks:
            waiting.append((block, pool.submit(_done, block)))
            if len(waiting) > _AHEAD * n_processes:
                first, made = waiting.popleft()
                yield first, made.result()
        for first, made in waiting:
            yield first, made.result()
    except BrokenProcessPool as error:
        raise RunError(
            "a process that encodes was killed, for want of memory perhaps; the same command goes "
            "on, with fewer --processes"
        ) from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
