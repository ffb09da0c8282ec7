"""JSON between two processes, over a TCP connection."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import threading
from collections.abc import Iterator
from typing import Any

# Seconds that a message may take to leave: the other side reads as soon as there is any.
_SEND_SECONDS = 10.0

# No message is longer; what is, has not been sent by us.
_MOST_BYTES = 2**24


class Link:
    """One end of a connection: dicts go out, dicts come in; it is closed when either side is gone.

    Any thread may send; one reads.
    """

    def __init__(self, connection: socket.socket):
        connection.settimeout(_SEND_SECONDS)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection, self._received = connection, b""
        self._sending = threading.Lock()

    def fileno(self) -> int:
        """For select."""
        return self._connection.fileno()

    def send(self, **message: Any) -> None:
        """Sends a message; whether the other side is still there, who reads will know."""
        line = json.dumps(message).encode() + b"\n"
        with contextlib.suppress(OSError), self._sending:
            self._connection.sendall(line)

    def messages(self) -> Iterator[dict[str, Any]]:
        """What has come by now, at least a part of a message, for which it waits.

        Raises:
          ConnectionError: if the other side is gone, or sends what is no message.
          TimeoutError: if nothing comes.
        """
        try:
            piece = self._connection.recv(2**16)
        except TimeoutError:
            raise
        except OSError as error:
            raise ConnectionError(str(error)) from error
        self._received += piece
        if not piece or len(self._received) > _MOST_BYTES:
            raise ConnectionError("closed")
        *lines, self._received = self._received.split(b"\n")
        for line in lines:
            try:
                message = json.loads(line)
            except ValueError as error:
                raise ConnectionError("no message") from error
            if not isinstance(message, dict):
                raise ConnectionError("no message")
            yield message

    def is_gone(self) -> bool:
        """Whether the other side has closed it; of one that has nothing more to say."""
        if not select.select([self._connection], [], [], 0)[0]:
            return False
        try:
            return not self._connection.recv(1, socket.MSG_PEEK)
        except OSError:
            return True

    def close(self) -> None:
        """Says goodbye; what was sent still arrives."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()
