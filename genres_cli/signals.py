"""How commands are asked to end: Ctrl-C, SIGTERM, and a terminal that is closed.

Belongs here: what a signal means, whichever command is at work. What a command does when it ends is written there.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue

_STDOUT, _STDERR = 1, 2


@contextmanager
def ending_with_the_terminal() -> Iterator[None]:
    """Let a terminal that is closed (SIGHUP) ask the command to end as SIGTERM does. For the main thread.

    Every command has its way of ending by SIGTERM. What it prints on the way is dropped: there is nobody to read it,
    and writing to a closed terminal fails.
    """
    before = signal.getsignal(signal.SIGHUP)
    if before is signal.SIG_IGN:  # what was told to be deaf to a closed terminal (nohup) stays so
        yield
        return
    # Looked up now: one that is closed is no terminal any more.
    terminals = [descriptor for descriptor in (_STDOUT, _STDERR) if os.isatty(descriptor)]

    def end(_number: int, _frame: object) -> None:
        # It comes twice: from the shell, and from the system when the shell has ended. A second SIGTERM means haste.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for terminal in terminals:
            os.dup2(nowhere, terminal)
        os.close(nowhere)
        signal.raise_signal(signal.SIGTERM)

    signal.signal(signal.SIGHUP, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


@contextmanager
def ended_in_order() -> Iterator[None]:
    """Let SIGTERM end what was started meanwhile, as Ctrl-C does. For the main thread.

    Left to itself Python ends at once, and the processes that it started go on. A stack that is up goes on in any case.
    """
    before = {signal.SIGTERM: signal.getsignal(signal.SIGTERM)}

    def end(number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_IGN)  # it is ending
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, end)
    # A shell starts background jobs deaf to SIGINT, which children inherit; the run and the daemon end in order by it.
    before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """Yield an event that Ctrl-C or SIGTERM sets; a second signal ends the process at once. For the main thread."""
    stop, asked = threading.Event(), SimpleQueue[bool]()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def ask_to_stop(_number: int, _frame: object) -> None:
        restore()
        asked.put(True)

    def pass_on() -> None:
        if asked.get():
            stop.set()

    # Not set by the handler: it may interrupt a wait for the event that holds the event's lock, and would never return.
    # This queue may be put to wherever a handler interrupts.
    threading.Thread(target=pass_on, name="stop-on-signals", daemon=True).start()
    for number in before:
        signal.signal(number, ask_to_stop)
    try:
        yield stop
    finally:
        restore()
        asked.put(False)
