"""Address of the page: checked before any model is opened, so that a wrong one ends within a second."""

import errno
import socket
import threading

from flows.errors import UserError

FIRST_PORT, PORTS = 7860, 100
"""First port that is tried without --port, and the number of ports."""
SECONDS = 0.8
"""Maximum time to look up the name of a host."""

REASONS = {
    errno.EADDRINUSE: "it is taken; choose another one",
    errno.EACCES: "it needs the rights of an administrator; choose one above 1023",
}


def choose_port(host: str, port: int | None) -> int:
    """Return the port to listen on: the given one, or else the first free one.

    Args:
        host: Name or number of an address of this machine.
        port: Port; None takes the first free one from `FIRST_PORT`.

    Raises:
        UserError: The host is no address of this machine, or the port is taken, reserved or no port.
    """
    if port is not None and not 0 < port < 2**16:
        raise UserError(f"--port: expected a number in 1 … {2**16 - 1}, got {port}")
    family, address = resolve(host)
    if port is not None:
        if error := bind_error(family, address, host, port):
            raise UserError(f"--port {port} of {host}: {REASONS.get(error, 'it cannot be used')}")
        return port
    for each in range(FIRST_PORT, FIRST_PORT + PORTS):
        if not bind_error(family, address, host, each):
            return each
    raise UserError(f"--port: all of {FIRST_PORT} … {FIRST_PORT + PORTS - 1} are taken; give another one")


def resolve(host: str) -> tuple[socket.AddressFamily, str]:
    """Look up a host: its family and number. Raises UserError if there is no such host."""
    found: list[tuple[socket.AddressFamily, str]] = []

    def look_up() -> None:
        try:
            answers = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return
        found.extend((answer[0], str(answer[4][0])) for answer in answers)

    # In a thread, because a name server that does not answer blocks for minutes.
    thread = threading.Thread(target=look_up, daemon=True)
    thread.start()
    thread.join(SECONDS)
    if not found:
        raise UserError(f"--host {host}: there is no such address; expected one of this machine, or 0.0.0.0")
    return found[0]


def bind_error(family: socket.AddressFamily, address: str, host: str, port: int) -> int:
    """Number of the error of listening on a port, 0 if it is free.

    Raises:
        UserError: The host is no address of this machine.
    """
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise UserError(
                    f"--host {host}: expected an address of this machine, or 0.0.0.0 for all of them"
                ) from error
            return error.errno or errno.EINVAL
    return 0
