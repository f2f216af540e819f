"""Which ports the stack uses: a free block chosen once for a state folder, and who holds a port that is taken."""

import socket
from contextlib import suppress
from pathlib import Path

import psutil
from dotenv import dotenv_values

from genres.errors import GenresError
from genres.settings import PORT_BLOCK, Ports, Settings
from genres.written_files import replaced
from local_stack.services import Service

_FIRST_BASE, _LAST_BASE = 18000, 32600  # above are the ports that outgoing connections get


def reserve_ports(settings: Settings) -> Settings:
    """Return `settings` with this stack's ports, and keep them in ``<state_dir>/stack.env`` for later commands.

    A port base that was set (in the environment, in ``.env``, in an earlier ``stack.env``) is taken as it is.
    Otherwise it is the first block, from 18000 on, in which no port is taken.

    Raises
    ------
    GenresError
        If no block is free.
    """
    stack_env = settings.state_dir / "stack.env"
    kept = dotenv_values(stack_env).get("GENRES_PORT_BASE") if stack_env.exists() else None
    if "port_base" in settings.model_fields_set:
        base = settings.port_base
    elif kept:
        base = int(kept)
    else:
        base = _first_free_base()
    if kept != str(base):
        settings.make_state_dir()
        with replaced(stack_env) as unfinished:
            unfinished.write_text(f"# Written by `genres up`: this folder's block of ports.\nGENRES_PORT_BASE={base}\n")
    return settings.model_copy(update={"port_base": base})


def require_free_ports(service: Service) -> None:
    """Raise a `GenresError` that names the port and its holder, if a port that `service` needs is taken."""
    for purpose, port in service.ports.items():
        if _is_free(port):
            continue
        holder = _holder(port)
        # Where only root may ask who listens, as on macOS, there is no ss either.
        look = f"lsof -nP -iTCP:{port} -sTCP:LISTEN" if psutil.MACOS else f"ss -ltnp 'sport = :{port}'"
        who = f"by {holder}" if holder else f"by a process you may not see (look with: {look})"
        raise GenresError(
            f"port {port}, which {service.name} needs for {purpose}, is taken {who}; "
            "end that process, or set GENRES_PORT_BASE to another block of ports"
        )


def held_by_another(service: Service, pid: int) -> str | None:
    """Return which port of `service` another process holds than `pid` and its children, and which; None if none.

    Nor does one count that cannot be told: where only root may ask who listens, as on macOS, or of another user.
    A `pid` that has ended holds none, so whatever answered was another.
    """
    try:
        own = {pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))}
    except psutil.NoSuchProcess:
        return f"process {pid} has ended"
    except psutil.AccessDenied:
        return None
    held = _holders()  # once for all of them: it reads every process's open files
    for port in service.ports.values():
        holders = held.get(port)
        if holders and own.isdisjoint(holders):
            return f"port {port} is held by process {holders[0]}"
    return None


def is_free_block(base: int) -> bool:
    """Return whether nothing listens on any port of the block that begins at `base`."""
    return all(_is_free(port) for port in Ports.from_base(base))


def _first_free_base() -> int:
    for base in range(_FIRST_BASE, _LAST_BASE, PORT_BLOCK):
        if is_free_block(base):
            return base
    raise GenresError(
        f"no free block of {PORT_BLOCK} ports between {_FIRST_BASE} and {_LAST_BASE}; set GENRES_PORT_BASE"
    )


def _is_free(port: int) -> bool:
    with socket.socket() as listener:
        # A connection that is winding down does not hold the port; a listener does, on any address.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _holder(port: int) -> str | None:
    """Return ``pid (command line)`` of the process that listens on `port`, if this user may see it."""
    pids = _holders().get(port)
    if not pids:
        return None
    try:
        process = psutil.Process(pids[0])
        command = " ".join([Path(process.name()).name, *process.cmdline()[1:]])
        return f"process {process.pid} ({command[:100]})"
    except psutil.Error:
        return None


def _holders() -> dict[int, list[int]]:
    """Return the processes that this user may see with a socket on a port, by port."""
    found: dict[int, list[int]] = {}
    with suppress(psutil.Error):
        for connection in psutil.net_connections(kind="tcp"):
            if connection.laddr and connection.pid:
                found.setdefault(connection.laddr.port, []).append(connection.pid)
    return found
