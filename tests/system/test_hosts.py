"""Processes find each other, decide together and notice who is gone; threads stand for them."""

import argparse
import contextlib
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import processes
import pytest

from gptjax.system import hosts, interrupt, link, rollcall, signals
from gptjax.system.errors import RunError, UserError
from gptjax.system.rollcall import Place, meet

GRACE_SECONDS = hosts._GRACE_SECONDS


@pytest.fixture(autouse=True)
def ended(monkeypatch):
    """What a process whose main thread does not end by itself would be ended with."""
    said = []
    monkeypatch.setattr(hosts, "_GRACE_SECONDS", 0.3)
    monkeypatch.setattr(signals, "end_tidied", lambda words, *, code: said.append((words, code)))
    monkeypatch.setattr(interrupt, "_at_once", [])
    yield said
    for thread in threading.enumerate():  # They must not find the real one in place again.
        if thread.name == hosts.ENDING:
            thread.join(30)


@pytest.fixture
def coordinator():
    """Where nobody listens yet."""
    return f"127.0.0.1:{processes.free_port()}"


def met(coordinator, *indices, of, wait_seconds=60.0):
    """What `meet` gives or raises for each of the processes, all at once."""

    def one(index):
        try:
            return meet(coordinator, n_processes=of, index=index, wait_seconds=wait_seconds)
        except (UserError, RunError) as error:
            return error

    with ThreadPoolExecutor(len(indices)) as pool:
        return list(pool.map(one, indices))


def on_all(processes, action):
    """What `action` gives or raises for each of the processes, all at once."""

    def one(process):
        try:
            return action(process)
        except (UserError, RunError) as error:
            return error

    with ThreadPoolExecutor(len(processes)) as pool:
        return list(pool.map(one, processes))


def leave(processes):
    on_all(processes, lambda process: process.__exit__(None, None, None))


def test_a_process_that_was_started_again_may_come_again(coordinator):
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(meet, coordinator, n_processes=3, index=0, wait_seconds=60.0)
        killed = rollcall._called(coordinator, time.monotonic() + 60, 60)
        killed.send(process=1, of=3, name="node")
        killed.close()
        others = met(coordinator, 1, 2, of=3)
        assert [process.index for process in others] == [1, 2]
        leave([first.result(), *others])


def test_they_decide_together_and_leave_in_peace(coordinator, ended):
    three = met(coordinator, 2, 0, 1, of=3)
    assert [process.index for process in three] == [2, 0, 1]
    assert [process.leads for process in three] == [False, True, False]
    squares = on_all(three, lambda process: process.gather(process.index**2))
    assert squares == [[0, 1, 4]] * 3
    largest = on_all(three, lambda process: process.decide([process.index], max))
    assert largest == [[2]] * 3
    leave(three)
    time.sleep(0.5)
    assert not ended


def test_the_first_goes_first(coordinator):
    pair, order = met(coordinator, 0, 1, of=2), []

    def enter(process):
        with process.first_in_turn():
            time.sleep(0.1 * process.leads)
            order.append(process.index)

    on_all(pair, enter)
    assert order == [0, 1]
    leave(pair)


@pytest.mark.parametrize("victim", [0, 1, 2])
def test_who_is_gone_is_named_to_all_others(coordinator, ended, victim):
    three = met(coordinator, 0, 1, 2, of=3)
    three[victim]._is_leaving = True  # The dead conclude nothing.
    for killed in three[victim]._links.values():
        killed._connection.shutdown(socket.SHUT_RDWR)
    others = [process for process in three if process.index != victim]
    said = on_all(others, lambda process: process.gather(None))
    assert [type(error) for error in said] == [RunError, RunError]
    assert {str(error) for error in said} == {f"{three[0].who(victim)} is gone"}
    until = time.monotonic() + 60
    while (f"error: {said[0]}", 1) not in ended:  # For who cannot raise it: it waits for ever.
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.parametrize("silent", [0, 2])
def test_who_does_not_answer_is_named(coordinator, monkeypatch, silent):
    monkeypatch.setattr(hosts, "SILENT_SECONDS", 3.0)
    monkeypatch.setattr(hosts, "_ALIVE_SECONDS", 0.1)
    stuck = threading.Event()
    three = met(coordinator, 0, 1, 2, of=3)
    for silenced in three[silent]._links.values():  # As a process that was stopped.
        monkeypatch.setattr(silenced, "send", lambda **message: stuck.wait(60))
    others = [process for process in three if process.index != silent]
    said = on_all(others, lambda process: process.gather(None))
    assert {str(error) for error in said} == {f"{three[0].who(silent)} has not answered for 3 s"}
    stuck.set()


def test_all_end_within_a_minute():
    most = hosts.SILENT_SECONDS + 2 * hosts._ALIVE_SECONDS + GRACE_SECONDS + signals._TIDY_SECONDS
    assert most < 60


def test_why_a_process_ended_is_told_to_the_others(coordinator):
    for failing in (0, 1):
        pair = met(coordinator, 0, 1, of=2)
        error = RunError("the disk is full")
        with pytest.raises(RunError), pair[failing]:
            raise error
        other = pair[1 - failing]
        words = f"{other.who(failing)} ended: the disk is full"
        with pytest.raises(RunError, match=f"^{words}$"):
            other.gather(None)


def test_an_operation_that_fails_since_one_is_gone_says_so(coordinator):
    class JaxRuntimeError(RuntimeError):
        """Named as XLA's."""

    pair = met(coordinator, 0, 1, of=2)
    with pytest.raises(RunError, match="process 1 on .* is gone"), pair[0].blamed():
        pair[1]._links[0]._connection.shutdown(socket.SHUT_RDWR)
        raise JaxRuntimeError("Connection closed by peer")
    for error in (ValueError("Gloo all-reduce failed: Connection closed"), JaxRuntimeError("x")):
        with pytest.raises(RunError, match="is gone"), pair[0].blamed():
            raise error
    with pytest.raises(JaxRuntimeError, match="RESOURCE"), pair[0].blamed():
        raise JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
    with pytest.raises(JaxRuntimeError), hosts.alone().blamed():
        raise JaxRuntimeError("alone")


def test_a_thread_that_cannot_go_on_knows_who_is_gone(coordinator, monkeypatch):
    monkeypatch.setattr(hosts, "_BLAME_SECONDS", 0.1)
    pair = met(coordinator, 0, 1, of=2)
    assert pair[0].await_end() == ""
    pair[1]._links[0]._connection.shutdown(socket.SHUT_RDWR)
    monkeypatch.setattr(hosts, "_BLAME_SECONDS", 60)
    assert pair[0].await_end() == f"error: {pair[0].who(1)} is gone"


def test_who_does_not_come_is_named(coordinator):
    said = met(coordinator, 0, 2, of=4, wait_seconds=2)
    words = "processes 1 and 3 did not come within 2 s; 2 of 4 did"
    assert [str(error) for error in said] == [words, words]
    (said,) = met(coordinator, 1, of=2, wait_seconds=0.3)
    assert f"process 0 did not come within 0.3 s: nobody answers at {coordinator}" in str(said)


def test_processes_that_do_not_go_together_are_refused(coordinator):
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(met, coordinator, 0, of=3)
        other = pool.submit(met, coordinator, 1, of=2)
        for said in (*first.result(), *other.result()):
            assert isinstance(said, UserError) and "--num_processes: 3; process 1" in str(said)
    said = met(coordinator, 0, 1, 1, of=3)
    assert all("--process_id: 1; was given on" in str(error) for error in said)


def test_a_scanner_of_ports_disturbs_nobody(coordinator):
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(met, coordinator, 0, of=2)
        for sent in (b"", b"GET / HTTP/1.1\r\n\r\n", b"[1]\n", b'{"process": "x"}\n', b"\xff\n"):
            with contextlib.closing(connected(coordinator)) as stranger:
                stranger.sendall(sent)
        (other,) = met(coordinator, 1, of=2)
        leave([*first.result(), other])


def connected(coordinator):
    while True:
        with contextlib.suppress(ConnectionRefusedError):
            return socket.create_connection(rollcall.address(coordinator))


def test_a_port_in_use_is_told(coordinator):
    with socket.create_server(rollcall.address(coordinator)):
        (said,) = met(coordinator, 0, of=2)
    assert isinstance(said, UserError)
    assert f"--coordinator: {coordinator}; process 0 cannot be called there: addr" in str(said)


@pytest.mark.parametrize("wrong", ["here", "here:", ":1", "here:0", "here:99999", "here:x"])
def test_an_address_has_a_host_and_a_port(wrong):
    with pytest.raises(UserError, match="must be HOST:PORT"):
        rollcall.address(wrong)
    assert rollcall.address("[fe80::1]:7") == ("fe80::1", 7)


def asked(coordinator=None, num_processes=None, process_id=None, wait=300.0):
    return rollcall.asked(argparse.Namespace(**locals()))


def test_flags_say_which_process_this_is():
    assert asked() == Place() and asked().n_processes == 0
    assert asked(num_processes=1) == rollcall.ALONE
    assert asked("a:1", 3, 2, 7.0) == Place("a:1", 3, 2, 7.0)
    for wrong in (("a:1", 3), ("a:1",), (None, 2), (None, None, 0)):
        with pytest.raises(UserError, match="is missing beside"):
            asked(*wrong)
    with pytest.raises(UserError, match="must be from 0 to 2"):
        asked("a:1", 3, 3)
    with pytest.raises(UserError, match="must be ≥ 1"):
        asked("a:1", 0, 0)
    for wrong in (-1.0, 0.0, float("nan"), float("inf")):
        with pytest.raises(UserError, match="--wait: .* must be > 0"):
            asked(wait=wrong)


def test_messages_arrive_whole_whatever_the_pieces():
    with socket.create_server(("127.0.0.1", 0)) as server:
        there = socket.create_connection(server.getsockname())
        ours = link.Link(server.accept()[0])
    sent = [{"a": "ü" * n} for n in (0, 1, 70_000)]
    content = b"".join(json.dumps(message).encode() + b"\n" for message in sent)

    def trickle():
        for first in range(0, len(content), 999):
            there.sendall(content[first : first + 999])

    threading.Thread(target=trickle).start()
    found = []
    while len(found) < 3:
        found += ours.messages()
    assert found == sent
    there.close()
    with pytest.raises(ConnectionError):
        list(ours.messages())
