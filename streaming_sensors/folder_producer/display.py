"""What a person sees of a producer at work."""

import contextlib
import time
from collections import deque

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn

REPORT_S = 10.0
"""How often a line is printed where none can be redrawn, and how far back the rate looks, in seconds."""


class Display:
    """Progress for people: one live line on a terminal, a line now and then elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            SpinnerColumn(), TextColumn("{task.description}", markup=False), console=console, transient=True
        )
        self._task = self._progress.add_task("")
        self._history: deque[tuple[float, int, int]] = deque([(time.monotonic(), 0, 0)])
        self._next_line_at = 0.0
        self._last = ""
        self._outages: dict[str, str] = {}

    def __enter__(self) -> "Display":
        if self._console.is_terminal:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._progress.stop()

    def say(self, line: str) -> None:
        """Print a line that stays."""
        # A log on a full disk, or a terminal that is gone, is no reason to send no clips.
        with contextlib.suppress(OSError):
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def begin_outage(self, what: str, why: str) -> None:
        """Print that something does not work, once until it does."""
        if what not in self._outages:
            self.say(f"{why}; still trying")
        self._outages[what] = why

    def end_outage(self, what: str) -> None:
        """Print that something works again, if it did not."""
        if what in self._outages:
            del self._outages[what]
            self.say(f"{what} works again")

    @property
    def outage(self) -> str | None:
        """Why what does not work now does not; None if everything works."""
        return "; ".join(self._outages.values()) or None

    def show(self, counts: str, clips: int, size: int) -> None:
        """Show the counts, with the rate of the last seconds."""
        now = time.monotonic()
        if now - self._history[-1][0] > 0.5:
            self._history.append((now, clips, size))
        while len(self._history) > 1 and now - self._history[0][0] > REPORT_S:
            self._history.popleft()
        then, clips_then, size_then = self._history[0]
        seconds = max(now - then, 0.1)
        rate = f"{(clips - clips_then) / seconds:.1f} clips/s, {(size - size_then) / 1e6 / seconds:.1f} MB/s"
        if self._console.is_terminal:
            self._progress.update(self._task, description=f"{counts}; {rate}")
        elif counts != self._last and now >= self._next_line_at:
            self._next_line_at, self._last = now + REPORT_S, counts
            self.say(f"{counts}; {rate}")
