"""A process of its own that serves JAX's coordination service, for distributed.py.

JAX serves it from the first process of a run. When that is killed, JAX ends all others by abort()
before they can say or save anything. This one outlives it until they have ended by themselves.

Run as a file with the number of processes; prints its port. It ends when its stdin says "done", and
some time after its stdin is closed.
"""

import signal
import socket
import sys
import time

# Longer than a process of a run takes to end when another is gone (system/hosts.py), seconds.
_LINGER_SECONDS = 30.0

# JAX's own watch over processes, which ends them by abort(), is never to strike, seconds.
NEVER = 10**7


def main() -> None:
    """Serves until it is told that all is done, or nobody can need it any more."""
    from jaxlib import _jax

    # A cluster's signals are for the run, which stops, saves, and says when it needs no service.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)

    with socket.socket(socket.AF_INET) as free:
        # Kept until the service has it, which shares it as gRPC does: nobody is given it meanwhile.
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        free.bind(("", 0))
        port = free.getsockname()[1]
        service = _jax.get_distributed_runtime_service(
            f"[::]:{port}", int(sys.argv[1]), heartbeat_timeout=NEVER, shutdown_timeout=NEVER
        )
    print(port, flush=True)
    if sys.stdin.readline().strip() != "done":
        time.sleep(_LINGER_SECONDS)
    service.shutdown()


if __name__ == "__main__":
    main()
