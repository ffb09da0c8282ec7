"""The processes of a run, one a host: who is there, what they decide together, and who is gone.

Each of them has a connection to the first, which leads. A process that is killed closes its own
and is known to be gone at once; one that is stuck, or whose host has vanished, some seconds later.
Then all others end, each with a line that says who it was: JAX alone would end them by abort(), or
not at all. Nothing depends on clocks being right.
"""

from __future__ import annotations

import contextlib
import json
import queue
import selectors
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from gptjax.system import interrupt, signals
from gptjax.system.errors import RunError
from gptjax.system.link import Link

# What the thread is called that ends a process.
ENDING = "ending"

# How often a process shows that it is there, and how long it may not, seconds.
_ALIVE_SECONDS = 2.0
SILENT_SECONDS = 30.0

# What a process has for ending by itself once another is gone, seconds.
_GRACE_SECONDS = 12.0

# How long it may take until it is known who has made a collective operation fail, seconds.
_BLAME_SECONDS = SILENT_SECONDS + 5.0


class Hosts:
    """All processes of a run, seen by one of them; use it as a context manager.

    Attributes:
      index: this process's number; 0 leads: it alone writes and prints.
      names: every process's host, by number.
    """

    def __init__(self, index: int, names: Sequence[str], links: dict[int, Link]):
        """`links` lead from the first process to all others, and from those to the first."""
        self.index, self.names = index, list(names)
        self._links = links
        self._values: dict[int, queue.Queue[Any]] = {peer: queue.Queue() for peer in links}
        self._heard = dict.fromkeys(links, time.monotonic())
        self._left: set[int] = set()
        self._words, self._is_over, self._is_leaving = "", threading.Event(), False
        self._concluding = threading.Lock()
        if links:
            threading.Thread(target=self._watch, daemon=True).start()

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.names)

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.index == 0

    def who(self, index: int) -> str:
        """A process, as a line names it."""
        return f"process {index} on {self.names[index]}"

    def decide(self, own: Any, choose: Callable[[list[Any]], Any]) -> Any:
        """What the first process makes of the values of all, in their order; the same on all.

        All must come here, in the same order. Values are JSON.

        Raises:
          RunError: if one of them is gone.
        """
        if self.leads:
            values = [own, *(self._next_value(peer) for peer in sorted(self._links))]
            decided = json.loads(json.dumps(choose(values)))
            for link in self._links.values():
                link.send(decided=decided)
            return decided
        self._links[0].send(value=own)
        return self._next_value(0)

    def gather(self, own: Any) -> list[Any]:
        """The values of all processes, by number."""
        return self.decide(own, list)

    @contextlib.contextmanager
    def first_in_turn(self) -> Iterator[None]:
        """While inside, the first process is alone; the others come in when it has left."""
        if not self.leads:
            self.gather(None)
        yield
        if self.leads:
            self.gather(None)

    @contextlib.contextmanager
    def blamed(self) -> Iterator[None]:
        """While inside, an operation that fails because a process is gone says which one."""
        try:
            yield
        except (RuntimeError, ValueError) as error:
            may_be = self._links and _is_of_others(error)
            if may_be and self._is_over.wait(_BLAME_SECONDS):
                raise RunError(self._words) from error
            raise

    def __enter__(self) -> Hosts:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        """Leaves when all do; or tells the others what has happened here."""
        if not self._links:
            return
        if error is None:
            self.gather(None)
            self._is_leaving = True
            for link in self._links.values():
                link.send(left=True)
            return
        interrupt.end_at_once_at_the_end()
        self.fail(" ".join(str(error).split())[:300] or type(error).__name__)

    def fail(self, words: str) -> None:
        """Tells the others why this process ends; it has some time to do so."""
        self._is_leaving = True
        for link in self._links.values():
            if self.leads:
                link.send(gone=f"{self.who(0)} ended: {words}")
            else:
                link.send(ended=words)
        self._end_in_time("")

    def await_end(self) -> str:
        """Returns only if this process does not end by itself: why it must, "" if nobody is gone.

        For a thread of a library that cannot go on: who is gone may not be known yet.
        """
        if not self._is_over.wait(_BLAME_SECONDS):
            return ""
        time.sleep(2 * _GRACE_SECONDS)
        return f"error: {self._words}"

    def _next_value(self, peer: int) -> Any:
        while True:
            with contextlib.suppress(queue.Empty):
                return self._values[peer].get(timeout=0.2)
            if self._is_over.is_set():
                raise RunError(self._words)

    def _watch(self) -> None:
        """Reads what comes, until this process ends; shows that it is there."""
        selector, shown = selectors.DefaultSelector(), 0.0
        for peer, link in self._links.items():
            selector.register(link, selectors.EVENT_READ, peer)
        while selector.get_map():
            for key, _ in selector.select(timeout=_ALIVE_SECONDS / 2):
                try:
                    for message in self._links[key.data].messages():
                        self._take(key.data, message)
                except (ConnectionError, TimeoutError):
                    selector.unregister(key.fileobj)
                    self._lost(key.data, "is gone")
            now = time.monotonic()
            if now - shown >= _ALIVE_SECONDS:
                shown = now
                for link in self._links.values():
                    link.send(alive=True)
            for peer, heard in self._heard.items():
                if now - heard > SILENT_SECONDS:
                    self._lost(peer, f"has not answered for {SILENT_SECONDS:.0f} s")

    def _take(self, peer: int, message: dict[str, Any]) -> None:
        self._heard[peer] = time.monotonic()
        if "left" in message:
            self._left.add(peer)
        elif "gone" in message:
            self._conclude(message["gone"])
        elif "ended" in message:
            self._left.add(peer)
            self._conclude(f"{self.who(peer)} ended: {message['ended']}")
        elif "value" in message or "decided" in message:
            self._values[peer].put(next(iter(message.values())))

    def _lost(self, peer: int, how: str) -> None:
        if peer not in self._left:
            self._left.add(peer)
            self._conclude(f"{self.who(peer)} {how}")

    def _conclude(self, words: str) -> None:
        """Ends the run, once, since a process is gone; all are told which."""
        with self._concluding:
            if self._is_over.is_set() or self._is_leaving:
                return
            self._words = words
            # Before this process can end by itself, which would be taken for the reason.
            for peer in (set(self._links) - self._left) if self.leads else ():
                self._links[peer].send(gone=words)
            self._is_over.set()
        interrupt.end_at_once_at_the_end()
        self._end_in_time(f"error: {words}")

    def _end_in_time(self, words: str) -> None:
        """Ends the process if it has not done so itself: its main thread may wait for ever."""

        def end() -> None:
            time.sleep(_GRACE_SECONDS)
            signals.end_tidied(words, code=1)

        threading.Thread(target=end, name=ENDING, daemon=True).start()


def _is_of_others(error: Exception) -> bool:
    """Whether an error may be XLA's for an operation of several processes."""
    # Told by its name: this wing knows no JAX. Gloo's comes as a ValueError, too.
    is_xlas = type(error).__name__ == "JaxRuntimeError" or "Gloo" in str(error)
    return is_xlas and "RESOURCE_EXHAUSTED" not in str(error)


def alone(name: str = "this host") -> Hosts:
    """A run that has one process."""
    return Hosts(0, [name], {})
