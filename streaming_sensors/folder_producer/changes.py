"""Changes in the watched folder, as the operating system tells of them: a thread that starts again when that fails."""

import threading
from collections.abc import Callable
from pathlib import Path

_PAUSES_S = (1.0, 30.0)
"""How long watching pauses after it failed, the first time and at most, in seconds."""


class Changes:
    """A thread that tells which paths change.

    It is only faster than a look at the whole folder, which has to come now and then all the same: what changes while
    watching pauses is not told.

    Parameters
    ----------
    root
        The folder to watch, with all below it.
    on_change
        Called with the path of whatever changed, in the thread.
    on_failure
        Called in the thread when watching fails, with the reason; it starts again after a pause.
    """

    def __init__(self, root: Path, *, on_change: Callable[[Path], None], on_failure: Callable[[Exception], None]):
        self._root, self._on_change, self._on_failure = root, on_change, on_failure
        self._closing = threading.Event()
        self._restart = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def restart(self) -> None:
        """Begin again: the folder is another one under the same name, which the operating system does not tell."""
        self._restart.set()

    def close(self) -> None:
        """Ask the thread to end; it takes half a second at most."""
        self._closing.set()
        self._restart.set()

    def _run(self) -> None:
        import watchfiles

        pause_s = _PAUSES_S[0]
        while not self._closing.is_set():
            try:
                for changes in watchfiles.watch(
                    self._root, watch_filter=None, debounce=200, step=50, rust_timeout=500, stop_event=self._restart
                ):
                    pause_s = _PAUSES_S[0]
                    for _, path in changes:
                        self._on_change(Path(path))
            # Whatever it is, such as a name that is not UTF-8, too few inotify watches, or the folder being gone.
            except Exception as error:
                self._on_failure(error)
                self._closing.wait(pause_s)
                pause_s = min(2 * pause_s, _PAUSES_S[1])
            if not self._closing.is_set():
                self._restart.clear()
