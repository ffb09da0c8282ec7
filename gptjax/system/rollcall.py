"""How the processes of a run find each other: all call the first, and it waits until all have."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import platform
import socket
import sys
import time
from collections.abc import Iterable
from typing import Any

from gptjax.system.errors import RunError, UserError
from gptjax.system.hosts import Hosts
from gptjax.system.link import Link

# How often those that wait for the first process call it, seconds.
_CALL_SECONDS = 0.2

# After so many seconds the first process says for whom it waits.
_PATIENCE_SECONDS = 10.0


@dataclasses.dataclass(frozen=True)
class Place:
    """Which process of a run this is.

    Attributes:
      coordinator: HOST:PORT of the first; "" where it was not given.
      n_processes: 0 where it was not given: then the cluster is asked.
      index: this one's number.
      wait_seconds: for the others, at the start.
    """

    coordinator: str = ""
    n_processes: int = 0
    index: int = 0
    wait_seconds: float = 300.0


# Whatever a cluster says.
ALONE = Place(n_processes=1)


def asked(flags: argparse.Namespace) -> Place:
    """What train.py's flags say; raises UserError for some that do not go together."""
    if not 0 < flags.wait < 1e6:
        raise UserError("--wait", flags.wait, "must be > 0 and < 1e6 seconds")
    given = {
        "--coordinator": flags.coordinator,
        "--num_processes": flags.num_processes,
        "--process_id": flags.process_id,
    }
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == 3:
        return Place(wait_seconds=flags.wait)
    if missing == ["--coordinator", "--process_id"] and flags.num_processes == 1:
        return ALONE
    if missing:
        raise UserError("command line", missing[0], "is missing beside the others of several hosts")
    if flags.num_processes < 1:
        raise UserError("--num_processes", flags.num_processes, "must be ≥ 1")
    if not 0 <= flags.process_id < flags.num_processes:
        rule = f"must be from 0 to {flags.num_processes - 1}"
        raise UserError("--process_id", flags.process_id, rule)
    address(flags.coordinator)
    return Place(flags.coordinator, flags.num_processes, flags.process_id, flags.wait)


def meet(coordinator: str, *, n_processes: int, index: int, wait_seconds: float) -> Hosts:
    """The processes of a run, once all are there; `coordinator` is HOST:PORT of the first.

    Raises:
      UserError: if the first cannot be called there, or the processes do not go together.
      RunError: if one does not come in `wait_seconds`.
    """
    until = time.monotonic() + wait_seconds
    if index == 0:
        return _led(coordinator, n_processes, until, wait_seconds)
    link = _called(coordinator, until, wait_seconds)
    link.send(process=index, of=n_processes, name=platform.node())
    while True:
        try:
            for message in link.messages():
                if "refused" in message:
                    raise UserError(*message["refused"])
                if "names" in message:
                    return Hosts(index, message["names"], {0: link})
                if "gone" in message:
                    raise RunError(message["gone"])
        except TimeoutError:
            if time.monotonic() > until + _PATIENCE_SECONDS:
                raise RunError(f"process 0 at {coordinator} does not answer") from None
        except ConnectionError:
            raise RunError(f"process 0 at {coordinator} is gone") from None


def address(coordinator: str) -> tuple[str, int]:
    """Host and port; raises UserError unless it has both."""
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise UserError("--coordinator", coordinator, "must be HOST:PORT of process 0")
    return host.strip("[]"), int(port)


def _led(coordinator: str, n_processes: int, until: float, wait_seconds: float) -> Hosts:
    """As `meet`, by the first process."""
    links: dict[int, Link] = {}
    names = {0: platform.node()}
    with _listening(coordinator) as server:
        patient_until, is_told = time.monotonic() + _PATIENCE_SECONDS, False
        while missing := sorted(set(range(n_processes)) - set(names)):
            now = time.monotonic()
            if now > until:
                came = f"did not come within {wait_seconds:g} s; {len(names)} of {n_processes} did"
                words = f"{_named(missing)} {came}"
                _tell(links.values(), gone=words)
                raise RunError(words)
            if now > patient_until and not is_told:
                is_told = True
                print(f"gptjax: waiting for {_named(missing)} of {n_processes}", file=sys.stderr)
            server.settimeout(min(0.5, max(0.01, until - now)))
            with contextlib.suppress(TimeoutError):
                link = Link(server.accept()[0])
                if (found := _introduced(link)) is None:
                    link.close()  # No process of ours: a scanner of ports.
                    continue
                came_before = links.get(found["process"])
                if came_before is not None and came_before.is_gone():  # And was started again.
                    del links[found["process"]], names[found["process"]]
                    came_before.close()
                refused = _refusal(found, n_processes, names)
                if refused:
                    _tell([link, *links.values()], refused=refused)
                    raise UserError(*refused)
                index = found["process"]
                links[index], names[index] = link, found["name"]
    ordered = [names[index] for index in range(n_processes)]
    _tell(links.values(), names=ordered)
    return Hosts(0, ordered, links)


def _listening(coordinator: str) -> socket.socket:
    host, port = address(coordinator)
    is_here = host in ("127.0.0.1", "localhost")
    try:
        if is_here or not socket.has_dualstack_ipv6():
            return socket.create_server(("127.0.0.1" if is_here else "", port))
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    except OSError as error:
        reason = error.strerror or str(error)
        rule = f"process 0 cannot be called there: {reason.lower()}"
        raise UserError("--coordinator", coordinator, rule, "Choose another port.") from error


def _called(coordinator: str, until: float, wait_seconds: float) -> Link:
    """The connection to the first process."""
    host, port = address(coordinator)
    while True:
        try:
            return Link(socket.create_connection((host, port), timeout=5))
        except OSError as error:
            if time.monotonic() > until:
                reason = error.strerror or str(error)
                words = f"did not come within {wait_seconds:g} s: nobody answers at {coordinator}"
                raise RunError(f"process 0 {words} ({reason.lower()})") from error
        time.sleep(_CALL_SECONDS)


def _introduced(link: Link) -> dict[str, Any] | None:
    """What a process that has called says of itself; None for what is none of ours."""
    try:
        found = next(link.messages(), None)
    except (ConnectionError, TimeoutError):
        return None
    kinds = {"process": int, "of": int, "name": str}
    fits = found is not None and all(type(found.get(key)) is kind for key, kind in kinds.items())
    return found if fits else None


def _refusal(found: dict[str, Any], n_processes: int, names: dict[int, str]) -> list[str]:
    """Why a process does not belong here, as UserError takes it; [] if it does."""
    index, here = found["process"], f"on {found['name']}"
    if found["of"] != n_processes:
        rule = f"process {index} {here} was told {found['of']}"
        return ["--num_processes", str(n_processes), rule, "All processes need the same."]
    if not 0 <= index < n_processes:
        return ["--process_id", str(index), f"{here}; must be from 0 to {n_processes - 1}", ""]
    if index in names:
        rule = f"was given {here} and on {names[index]}"
        return ["--process_id", str(index), rule, "Each process needs its own."]
    return []


def _tell(links: Iterable[Link], **message: Any) -> None:
    for link in links:
        link.send(**message)


def _named(indices: list[int]) -> str:
    """Processes, as a line names them."""
    if len(indices) == 1:
        return f"process {indices[0]}"
    most = [str(index) for index in indices[:8]] + ["…"] * (len(indices) > 8)
    return f"processes {', '.join(most[:-1])} and {most[-1]}"
