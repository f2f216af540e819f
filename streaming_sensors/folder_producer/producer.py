"""The producer's loop: what changed in the folder, what is whole, what the broker confirmed.

A file counts as sent only when the broker has confirmed it, and is remembered after that. A producer that is killed in
between sends the file again when it is started again, which the sink absorbs; it never forgets one.
"""

import hashlib
import logging
import queue
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from genres.audio.gate import MAX_CHANNELS, SAMPLE_RATES, RejectedAudio, inspect
from genres.errors import GenresError
from genres.file_names import display_path, unicode_name
from genres.settings import Settings
from genres.store.database import Database
from genres.store.stream_ledger import sent_files
from genres.store.stream_ledger.commits import QuarantinedClip, quarantine_clip
from genres.store.stream_ledger.sent_files import SentFile
from streaming_sensors.envelope import ClipMessage
from streaming_sensors.folder_producer.claim_check import ClaimChecks
from streaming_sensors.folder_producer.display import REPORT_S, Display
from streaming_sensors.folder_producer.folder import (
    ERROR_FOLDER,
    Stamp,
    clips,
    find_stamp,
    is_clip,
    ledger_key,
    move_aside,
    watchable,
)
from streaming_sensors.folder_producer.outlet import CONNECT_S, ClipInFlight, Delivery, Outlet
from streaming_sensors.topic import KafkaUnreachableError

_RESCAN_S = 3.0
_COMPRESSED = {".flac", ".mp3"}
"""Suffixes of containers whose header does not say whether all bytes are there."""
_COMPRESSED_PATIENCE = 5
"""How many times ``settle_s`` such a file must be unchanged."""
_PATIENCE = 20
"""How many times ``settle_s`` a file that is not whole by its header may stay unchanged before it is refused."""
_TRY_AGAIN_S = 10.0
_FLUSH_S = 10.0


class WatchReport(NamedTuple):
    """What a producer did until it ended."""

    sent: int
    """Files that the broker confirmed and the ledger remembers."""
    sent_bytes: int
    """Their bytes, those that went by HDFS included."""
    refused: int
    """Files that are no audio and were quarantined."""
    left: int
    """Files that were neither: still being written, unreadable, or not confirmed before the end."""


def watch(
    settings: Settings, folder: Path, topic: str, *, once: bool, console: Console, stop: threading.Event
) -> WatchReport:
    """Send the clips of a folder to a topic, those that are there and those that come.

    A clip is a regular, visible file with a suffix that the audio gate reads, in the folder itself or in a sub-folder,
    whose name is then the genre. It is sent when its size and time have not changed for ``settle_s`` and its header
    agrees with its bytes. A file whose header disagrees for twenty times as long is quarantined and moved to
    ``error/``. A clip above ``inline_limit_bytes`` goes to HDFS and its message carries the path.

    Of compressed containers (FLAC, MP3) the header does not say whether all bytes are there: a writer of those
    that pauses for longer than five times ``settle_s`` is taken to be done.

    Parameters
    ----------
    settings
        Limits and addresses.
    folder
        The folder to watch. Files that were sent stay where they are.
    topic
        The Kafka topic, which has to be there.
    once
        Send what is there and end, instead of waiting for more.
    console
        Takes the progress and a line for whatever goes wrong.
    stop
        Set from outside to end: what is on its way is confirmed and remembered first.

    Returns
    -------
    WatchReport
        What was done.

    Raises
    ------
    GenresError
        If the folder cannot be watched, the topic or the tables are missing, or the broker refuses a clip; with
        `once` also if Kafka or HDFS does not answer or a file cannot be read. Otherwise outages are waited out.
    """
    # The client logs every attempt to connect; what matters of that is said here.
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    root = watchable(folder)
    database = Database(settings.database)
    database.check_migrated()
    with Display(console) as display:
        return _FolderProducer(settings, root, topic, database, display, once=once, stop=stop).run()


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """Yield an event that Ctrl-C or SIGTERM sets; a second signal ends the process at once. For the main thread."""
    stop = threading.Event()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def ask_to_stop(_number: int, _frame: object) -> None:
        restore()
        stop.set()

    for number in before:
        signal.signal(number, ask_to_stop)
    try:
        yield stop
    finally:
        restore()


@dataclass
class _Waiting:
    """A file that is neither sent nor refused yet."""

    stamp: Stamp
    unchanged_since: float
    """On the monotonic clock."""
    settled_at: float
    """When it has been unchanged for long enough, on the monotonic clock."""
    not_before: float
    """When to look at it again, on the monotonic clock."""


_Inbox = queue.SimpleQueue[Path | Delivery | Exception]


class _FolderProducer:
    """The loop: what changed, what is whole, what was confirmed. Only its own thread touches its state."""

    def __init__(
        self,
        settings: Settings,
        root: Path,
        topic: str,
        database: Database,
        display: Display,
        *,
        once: bool,
        stop: threading.Event,
    ) -> None:
        self._settings, self._root, self._topic = settings, root, topic
        self._database, self._display = database, display
        self._once, self._stop = once, stop
        self._inbox: _Inbox = queue.SimpleQueue()
        self._outlet = Outlet(settings, topic, on_delivery=self._inbox.put)
        self._claim_checks = ClaimChecks(settings)
        self._max_clip_bytes = int(settings.max_clip_s * SAMPLE_RATES[1] * MAX_CHANNELS * 8) + 2**20
        self._waiting: dict[Path, _Waiting] = {}
        self._done: dict[Path, Stamp] = {}
        self._complained: dict[Path, Stamp] = {}
        self._sent = self._sent_bytes = self._refused = self._known = 0
        self._outage_said_at = 0.0

    def run(self) -> WatchReport:
        """Send until told to stop; with `once` until nothing is left to send."""
        begun = time.monotonic()
        give_up_at = begun + 2 * _PATIENCE * self._settings.settle_s
        closing = threading.Event()
        watcher = threading.Thread(target=self._watch_changes, args=(closing,), daemon=True)
        try:
            self._connect(timeout_s=_TRY_AGAIN_S)
            if not self._once:
                watcher.start()
            rescan_at = begun
            while not self._stop.is_set():
                if time.monotonic() >= rescan_at:
                    took_s = self._rescan()
                    rescan_at = float("inf") if self._once else time.monotonic() + max(_RESCAN_S, 10 * took_s)
                nothing_due = self._send_whole_ones()
                if self._once and nothing_due and self._is_finished(give_up_at):
                    break
                if self._take_in(0.1):
                    rescan_at = 0.0
                self._connect(timeout_s=CONNECT_S)
                self._display.show(self._counts(), self._sent, self._sent_bytes)
        finally:
            closing.set()
            self._finish()
        return self._report(time.monotonic() - begun)

    def _report(self, seconds: float) -> WatchReport:
        """Say and return what was done; with `once` a file that could not be read is an error."""
        self._display.say(f"{self._counts()} in {seconds:.1f} s ({self._sent_bytes / 1e6:.1f} MB)")
        if self._once and self._complained and not self._stop.is_set():
            raise GenresError(
                f"{len(self._complained)} file(s) or folder(s) in {display_path(self._root)} could not be read, "
                f"{display_path(next(iter(self._complained)))} for one: give this user the right to, and run again"
            )
        left = len(self._waiting) + self._outlet.in_flight
        return WatchReport(self._sent, self._sent_bytes, self._refused, left)

    def _is_finished(self, give_up_at: float) -> bool:
        """Whether there is no file left that will be whole soon."""
        now = time.monotonic()
        unsettled = any(waiting.settled_at > now for waiting in self._waiting.values())
        return not self._outlet.in_flight and (not unsettled or now > give_up_at)

    def _watch_changes(self, closing: threading.Event) -> None:
        """Put the path of whatever changes in the inbox; runs in a thread of its own."""
        import watchfiles

        try:
            for changes in watchfiles.watch(
                self._root, watch_filter=None, debounce=200, step=50, rust_timeout=500, stop_event=closing
            ):
                for _, path in changes:
                    self._inbox.put(Path(path))
        except Exception as error:  # whatever it is, the loop has to hear of it
            self._inbox.put(error)

    def _take_in(self, timeout_s: float) -> bool:
        """Take everything from the inbox, waiting for the first; True if a folder changed, so that a rescan is due."""
        folder_changed, deadline = False, time.monotonic() + timeout_s
        while True:
            try:
                item = self._inbox.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                return folder_changed
            deadline = 0.0
            if isinstance(item, Delivery):
                self._settle(item)
            elif isinstance(item, Exception):
                raise GenresError(
                    f"cannot watch {display_path(self._root)}: {item}; check that it is there and that this user may "
                    "have more inotify watches (fs.inotify.max_user_watches)"
                ) from item
            elif is_clip(item, self._root):
                self._notice(item)
            else:
                folder_changed = folder_changed or item.is_dir()

    def _rescan(self) -> float:
        """Notice every clip of the folder, and forget the files that are gone; return how long it took, in seconds."""
        begun, there = time.monotonic(), set()
        for path in clips(self._root, self._say_once):
            there.add(path)
            self._notice(path)
        for memory in (self._done, self._waiting, self._complained):
            for path in [path for path in memory if path not in there and not path.exists()]:
                del memory[path]
        return time.monotonic() - begun

    def _notice(self, path: Path) -> None:
        """Let the file wait until it is whole, unless this state of it was dealt with."""
        if self._outlet.carries(path):
            return
        found = find_stamp(path)
        if found is None:
            return
        stamp, age_s = found
        if self._done.get(path) == stamp:
            return
        waiting = self._waiting.get(path)
        if waiting is None:
            before = sent_files.last_sent(self._database, ledger_key(path))
            if before and (before.size, before.mtime_ns, before.topic) == (*stamp, self._topic):
                self._done[path] = stamp
                self._known += 1
                return
        if waiting is None or waiting.stamp != stamp:
            since = time.monotonic() - age_s
            patience = _COMPRESSED_PATIENCE if path.suffix.lower() in _COMPRESSED else 1
            settled_at = since + patience * self._settings.settle_s
            self._waiting[path] = _Waiting(stamp, since, settled_at, not_before=settled_at)

    def _send_whole_ones(self) -> bool:
        """Send what is settled and whole, as far as there is room in flight; True if all of it was dealt with."""
        pause_at = time.monotonic() + 0.5
        for path, waiting in list(self._waiting.items()):
            if waiting.not_before > time.monotonic():
                continue
            if (
                self._stop.is_set()
                or not self._outlet.connected
                or time.monotonic() > pause_at
                or not self._outlet.has_room(waiting.stamp.size)
            ):
                return False
            try:
                self._offer(path, waiting)
            except FileNotFoundError:
                del self._waiting[path]
            except OSError as error:
                why = f"{display_path(path)} cannot be read ({error.strerror}): give this user the right to"
                self._postpone(path, why)
        return all(waiting.not_before > time.monotonic() for waiting in self._waiting.values())

    def _offer(self, path: Path, waiting: _Waiting) -> None:
        """Send the file if it is whole, refuse it if it is settled and will not become so."""
        created_at = datetime.fromtimestamp(path.stat().st_ctime, UTC)
        too_large = waiting.stamp.size > self._max_clip_bytes
        data = b"" if too_large else path.read_bytes()
        found = find_stamp(path)
        if found is None or found[0] != waiting.stamp or not (too_large or len(data) == waiting.stamp.size):
            del self._waiting[path]
            self._notice(path)
            return
        try:
            if too_large:
                raise RejectedAudio(
                    f"{waiting.stamp.size:,} bytes; {self._settings.max_clip_s:g} s of audio have at most "
                    f"{self._max_clip_bytes:,}"
                )
            inspect(data, suffix=path.suffix, max_clip_s=self._settings.max_clip_s)
        except RejectedAudio as rejected:
            patience_ends = waiting.unchanged_since + _PATIENCE * self._settings.settle_s
            if not self._once and time.monotonic() < patience_ends:
                waiting.not_before = patience_ends
            else:
                self._refuse(path, waiting.stamp, rejected.reason)
            return
        message = ClipMessage(
            hashlib.sha256(data).hexdigest(),
            file_name=unicode_name(path.name),
            suffix=path.suffix.lower(),
            size=len(data),
            created_at=created_at,
            genre=unicode_name(path.parent.name) if path.parent != self._root else None,
            data=data,
        )
        self._send(path, waiting.stamp, message)

    def _send(self, path: Path, stamp: Stamp, message: ClipMessage) -> None:
        """Hand a whole file to the outlet, by way of HDFS if it is too large for a message."""
        if message.size > self._settings.inline_limit_bytes:
            try:
                message = self._claim_checks.check_in(message)
            except (GenresError, OSError, RuntimeError) as error:
                if self._once:
                    raise
                self._postpone(path, f"{display_path(path)} waits for HDFS: {error}")
                return
        # Out of the waiting ones first: if sending fails, the outlet's answer puts it back.
        del self._waiting[path]
        self._outlet.send(ClipInFlight(path, stamp, message.sha256), message)

    def _refuse(self, path: Path, stamp: Stamp, reason: str) -> None:
        """Quarantine the file and move it out of the way; the row comes first, so that a crash repeats both."""
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        quarantine_clip(
            self._database, QuarantinedClip(sha256, unicode_name(path.name), "producer", reason, topic=self._topic)
        )
        del self._waiting[path]
        self._done[path] = stamp
        self._refused += 1
        refused = f"refused {display_path(path)}: {reason}"
        try:
            moved = move_aside(path, self._root / ERROR_FOLDER)
        except OSError as error:
            # It stays, and is not looked at again until it changes or the producer is started again.
            self._display.say(f"{refused}; it cannot be moved to {ERROR_FOLDER}/ ({error})")
        else:
            self._display.say(f"{refused}; it is in {display_path(moved.relative_to(self._root))}")

    def _settle(self, delivery: Delivery) -> None:
        """Remember a confirmed clip; let one that failed wait again."""
        from kafka.errors import AuthorizationError, MessageSizeTooLargeError

        clip = delivery.clip
        self._outlet.landed(clip)
        if delivery.error is None:
            sent_files.remember(
                self._database,
                SentFile(
                    ledger_key(clip.path),
                    *clip.stamp,
                    clip.sha256,
                    self._topic,
                    delivery.partition,
                    delivery.offset,
                    datetime.now(UTC),
                ),
            )
            self._done[clip.path] = clip.stamp
            self._complained.pop(clip.path, None)
            self._sent += 1
            self._sent_bytes += clip.stamp.size
            self._outage_said_at = 0.0
            self._notice(clip.path)
            return
        if isinstance(delivery.error, (MessageSizeTooLargeError, AuthorizationError)):
            raise GenresError(
                f"Kafka at {self._settings.bootstrap_servers} refuses {display_path(clip.path)} "
                f"({type(delivery.error).__name__}): run `genres up` to fit topic {self._topic!r} to "
                "GENRES_INLINE_LIMIT_BYTES, and check that this user may write to it"
            ) from delivery.error
        # Whatever state the client is in now, a new one has none of it.
        self._outlet.disconnect()
        self._waiting.setdefault(clip.path, _Waiting(clip.stamp, 0.0, 0.0, 0.0))

    def _connect(self, *, timeout_s: float) -> None:
        """See that there is a connection, and say so from time to time while the broker does not answer."""
        silent_s = self._outlet.silent_s()
        error: KafkaUnreachableError | None = None
        if not self._outlet.connected:
            try:
                self._outlet.connect(timeout_s)
            except KafkaUnreachableError as outage:
                if self._once:
                    raise
                error = outage
        if (error or silent_s > REPORT_S) and time.monotonic() - self._outage_said_at > REPORT_S:
            self._outage_said_at = time.monotonic()
            why = (
                str(error)
                if error
                else f"Kafka at {self._settings.bootstrap_servers} has not answered for {silent_s:.0f} s"
            )
            self._display.say(f"{why}; {len(self._waiting) + self._outlet.in_flight} clip(s) wait, still trying")

    def _finish(self) -> None:
        """Get what is on its way confirmed and remembered, and close the connection."""
        try:
            self._outlet.flush(_FLUSH_S)
            before = self._outlet.in_flight + 1
            while 0 < self._outlet.in_flight < before:
                before = self._outlet.in_flight
                self._take_in(1.0)
        finally:
            self._outlet.disconnect()
        if self._outlet.in_flight:
            self._display.say(f"{self._outlet.in_flight} clip(s) are not confirmed; the next start sends them again")

    def _postpone(self, path: Path, why: str) -> None:
        self._waiting[path].not_before = time.monotonic() + _TRY_AGAIN_S
        self._say_once(path, why)

    def _say_once(self, path: Path, why: str) -> None:
        """Say what is wrong with a file or folder, unless that was said of this state of it."""
        waiting = self._waiting.get(path)
        stamp = waiting.stamp if waiting else Stamp(0, 0)
        if self._complained.get(path) != stamp:
            self._complained[path] = stamp
            self._display.say(why)

    def _counts(self) -> str:
        waiting = len(self._waiting) + self._outlet.in_flight
        return f"{self._sent} sent, {self._refused} refused, {waiting} waiting, {self._known} sent before"
