"""JAX's coordination service in a process of its own."""

import signal
import socket
import subprocess
import sys

import pytest

from gptjax.device import coordinator


@pytest.fixture
def service():
    """Where it answers, and its process; told to end afterwards."""
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with subprocess.Popen([sys.executable, coordinator.__file__, "2"], **pipes) as process:
        try:
            yield int(process.stdout.readline()), process
        finally:
            process.kill()


def test_it_outlives_a_clusters_signals_until_it_is_told(service):
    port, process = service
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        process.send_signal(number)
    socket.create_connection(("127.0.0.1", port)).close()
    process.communicate("done\n")
    assert process.returncode == 0
