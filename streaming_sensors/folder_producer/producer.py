"""The folder producer: what is dropped in a folder goes to the topic, each file once it is whole.

Belongs here: finding the files, telling when they are whole, sending them, remembering what the broker confirmed and
setting aside what cannot be audio. The message's form is ``streaming_sensors.envelope``'s, the judgement of a header
``genres.audio.gate``'s, the memory ``genres.store.stream_ledger``'s.

A file counts as sent only when the broker has confirmed it, and is remembered after that. A producer that is killed in
between sends the file again when it is started again, which the sink absorbs; it never forgets one.
"""

import contextlib
import hashlib
import logging
import os
import queue
import signal
import stat
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn

from genres.audio.gate import MAX_CHANNELS, SAMPLE_RATES, SUFFIXES, RejectedAudio, inspect
from genres.errors import GenresError
from genres.file_names import display_path, unicode_name
from genres.settings import Settings
from genres.store.database import Database
from genres.store.stream_ledger import QuarantinedClip, SentFile, add_stream_quarantine, remember_sent, sent
from streaming_sensors.envelope import ClipMessage, encode
from streaming_sensors.topic import KafkaUnreachableError, max_message_bytes, topic_state

if TYPE_CHECKING:
    from genres.store.lake import Lake

ERROR_FOLDER = "error"
"""Sub-folder of the watched folder that takes the files which are no audio."""

IN_FLIGHT_BYTES = 32 * 2**20
"""How many bytes of clips may wait for the broker's confirmation."""

_RESCAN_S = 3.0
_COMPRESSED = {".flac", ".mp3"}
"""Suffixes of containers whose header does not say whether all bytes are there."""
_COMPRESSED_PATIENCE = 5
"""How many times ``settle_s`` such a file must be unchanged."""
_PATIENCE = 20
"""How many times ``settle_s`` a file that is not whole by its header may stay unchanged before it is refused."""
_TRY_AGAIN_S = 10.0
_CONNECT_S = 5.0
_REPORT_S = 10.0
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


def watch(settings: Settings, folder: Path, *, once: bool, console: Console, stop: threading.Event) -> WatchReport:
    """Send the clips of a folder to the topic, those that are there and those that come.

    A clip is a regular, visible file with a suffix that the audio gate reads, in the folder itself or in a sub-folder,
    whose name is then the genre. It is sent when its size and time have not changed for ``settle_s`` and its header
    agrees with its bytes. A file whose header disagrees for twenty times as long is quarantined and moved to
    ``error/``. A clip above ``inline_limit_bytes`` goes to HDFS and its message carries the path.

    Of compressed containers (FLAC, MP3) the header does not say whether all bytes are there: a writer of those
    that pauses for longer than five times ``settle_s`` is taken to be done.

    Parameters
    ----------
    settings
        Topic, limits and addresses.
    folder
        The folder to watch. Files that were sent stay where they are.
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
    root = _watchable(folder)
    database = Database(settings.database)
    database.check_migrated()
    with _Display(console) as display:
        return _FolderProducer(settings, root, database, display, once=once, stop=stop).run()


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """Give an event that Ctrl-C or SIGTERM sets; a second signal ends the process at once. For the main thread."""
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


class _Stamp(NamedTuple):
    """What tells one state of a file from another."""

    size: int
    mtime_ns: int


@dataclass
class _Waiting:
    """A file that is neither sent nor refused yet."""

    stamp: _Stamp
    unchanged_since: float
    """On the monotonic clock."""
    settled_at: float
    """When it has been unchanged for long enough, on the monotonic clock."""
    not_before: float
    """When to look at it again, on the monotonic clock."""


class _Clip(NamedTuple):
    """A file that is on its way."""

    path: Path
    stamp: _Stamp
    sha256: str


class _Delivery(NamedTuple):
    """The broker's answer for a clip."""

    clip: _Clip
    partition: int
    offset: int
    error: Exception | None


_Inbox = queue.SimpleQueue[Path | _Delivery | Exception]


class _FolderProducer:
    """The loop: what changed, what is whole, what was confirmed. Only its own thread touches its state."""

    def __init__(
        self,
        settings: Settings,
        root: Path,
        database: Database,
        display: "_Display",
        *,
        once: bool,
        stop: threading.Event,
    ) -> None:
        self._settings, self._root, self._database, self._display = settings, root, database, display
        self._once, self._stop = once, stop
        self._inbox: _Inbox = queue.SimpleQueue()
        self._outlet = _Outlet(settings, self._inbox)
        self._max_clip_bytes = int(settings.max_clip_s * SAMPLE_RATES[1] * MAX_CHANNELS * 8) + 2**20
        self._waiting: dict[Path, _Waiting] = {}
        self._done: dict[Path, _Stamp] = {}
        self._complained: dict[Path, _Stamp] = {}
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
                self._connect(timeout_s=_CONNECT_S)
                self._display.show(self._counts(), self._sent, self._sent_bytes)
        finally:
            closing.set()
            self._finish()
        left = len(self._waiting) + self._outlet.in_flight
        report = WatchReport(self._sent, self._sent_bytes, self._refused, left)
        seconds = time.monotonic() - begun
        self._display.say(f"{self._counts()} in {seconds:.1f} s ({self._sent_bytes / 1e6:.1f} MB)")
        if self._once and self._complained and not self._stop.is_set():
            raise GenresError(
                f"{len(self._complained)} file(s) or folder(s) in {display_path(self._root)} could not be read, "
                f"{display_path(next(iter(self._complained)))} for one: give this user the right to, and run again"
            )
        return report

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
            if isinstance(item, _Delivery):
                self._settle(item)
            elif isinstance(item, Exception):
                raise GenresError(
                    f"cannot watch {display_path(self._root)}: {item}; check that it is there and that this user may have "
                    "more inotify watches (fs.inotify.max_user_watches)"
                ) from item
            elif _is_clip(item, self._root):
                self._notice(item)
            else:
                folder_changed = folder_changed or item.is_dir()

    def _rescan(self) -> float:
        """Notice every clip of the folder, and forget the files that are gone; give how long it took, in seconds."""
        begun, there = time.monotonic(), set()
        for path in _clips(self._root, self._say_once):
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
        found = _stamp(path)
        if found is None:
            return
        stamp, age_s = found
        if self._done.get(path) == stamp:
            return
        waiting = self._waiting.get(path)
        if waiting is None:
            before = sent(self._database, _key(path))
            if before and (before.size, before.mtime_ns, before.topic) == (*stamp, self._settings.topic):
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
                self._postpone(
                    path, f"{display_path(path)} cannot be read ({error.strerror}): give this user the right to"
                )
        return all(waiting.not_before > time.monotonic() for waiting in self._waiting.values())

    def _offer(self, path: Path, waiting: _Waiting) -> None:
        """Send the file if it is whole, refuse it if it is settled and will not become so."""
        created_at = datetime.fromtimestamp(path.stat().st_ctime, UTC)
        too_large = waiting.stamp.size > self._max_clip_bytes
        data = b"" if too_large else path.read_bytes()
        found = _stamp(path)
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
        sha256 = hashlib.sha256(data).hexdigest()
        message = ClipMessage(
            sha256,
            file_name=unicode_name(path.name),
            suffix=path.suffix.lower(),
            size=len(data),
            created_at=created_at,
            genre=unicode_name(path.parent.name) if path.parent != self._root else None,
            data=data,
        )
        if len(data) > self._settings.inline_limit_bytes:
            try:
                message = self._checked_in(message)
            except (GenresError, OSError, RuntimeError) as error:
                if self._once:
                    raise
                self._postpone(path, f"{display_path(path)} waits for HDFS: {error}")
                return
        # Out of the waiting ones first: if sending fails, the outlet's answer puts it back.
        del self._waiting[path]
        self._outlet.send(_Clip(path, waiting.stamp, sha256), message)

    @cached_property
    def _lake(self) -> "Lake":
        # Most folders never need it, and its libraries take as long to import as everything else here.
        from genres.store.hdfs import Hdfs
        from genres.store.lake import Lake

        settings = self._settings
        files = Hdfs(settings.webhdfs, user=settings.hdfs_user, patience_s=_CONNECT_S)
        return Lake(files, hdfs=settings.hdfs, root=settings.lake_path)

    def _checked_in(self, message: ClipMessage) -> ClipMessage:
        """Bring a clip's bytes to HDFS and give the message with its claim check instead."""
        data = message.data or b""
        place = self._lake.path("stream", "claims", message.sha256 + message.suffix)
        if not (self._lake.files.exists(place) and self._lake.files.info(place)["size"] == len(data)):
            self._lake.put_clip(place, data)
        return ClipMessage(
            message.sha256,
            message.file_name,
            message.suffix,
            message.size,
            message.created_at,
            message.genre,
            claim_path=place,
        )

    def _refuse(self, path: Path, stamp: _Stamp, reason: str) -> None:
        """Quarantine the file and move it out of the way; the row comes first, so that a crash repeats both."""
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        add_stream_quarantine(self._database, QuarantinedClip(sha256, unicode_name(path.name), "producer", reason))
        del self._waiting[path]
        self._done[path] = stamp
        self._refused += 1
        try:
            moved = _move_aside(path, self._root / ERROR_FOLDER)
        except OSError as error:
            # It stays, and is not looked at again until it changes or the producer is started anew.
            self._display.say(
                f"refused {display_path(path)}: {reason}; it cannot be moved to {ERROR_FOLDER}/ ({error})"
            )
        else:
            self._display.say(
                f"refused {display_path(path)}: {reason}; it is in {display_path(moved.relative_to(self._root))}"
            )

    def _settle(self, delivery: _Delivery) -> None:
        """Remember a confirmed clip; let one that failed wait again."""
        from kafka.errors import AuthorizationError, MessageSizeTooLargeError

        clip = delivery.clip
        self._outlet.landed(clip)
        if delivery.error is None:
            remember_sent(
                self._database,
                SentFile(
                    _key(clip.path),
                    *clip.stamp,
                    clip.sha256,
                    self._settings.topic,
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
                f"({type(delivery.error).__name__}): run `genres up` to fit topic {self._settings.topic!r} to "
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
        if (error or silent_s > _REPORT_S) and time.monotonic() - self._outage_said_at > _REPORT_S:
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
        stamp = waiting.stamp if waiting else _Stamp(0, 0)
        if self._complained.get(path) != stamp:
            self._complained[path] = stamp
            self._display.say(why)

    def _counts(self) -> str:
        waiting = len(self._waiting) + self._outlet.in_flight
        return f"{self._sent} sent, {self._refused} refused, {waiting} waiting, {self._known} sent before"


class _Outlet:
    """The connection to the topic: one idempotent producer at a time, and what is on its way."""

    def __init__(self, settings: Settings, inbox: _Inbox) -> None:
        self._settings, self._inbox = settings, inbox
        self._producer: Any = None
        self._carried: dict[Path, _Clip] = {}
        self._carried_bytes = 0
        self._heard_at = 0.0

    @property
    def connected(self) -> bool:
        return self._producer is not None

    @property
    def in_flight(self) -> int:
        """How many clips wait for their confirmation."""
        return len(self._carried)

    def carries(self, path: Path) -> bool:
        return path in self._carried

    def has_room(self, size: int) -> bool:
        """Whether a clip of `size` bytes may be sent now; always one, however large."""
        return not self._carried or self._carried_bytes + size <= IN_FLIGHT_BYTES

    def silent_s(self) -> float:
        """For how long the broker has owed an answer, in seconds."""
        return time.monotonic() - self._heard_at if self._carried else 0.0

    def connect(self, timeout_s: float) -> None:
        """Make a producer; the topic has to be there."""
        from kafka import KafkaProducer
        from kafka.errors import KafkaError

        topic_state(self._settings, self._settings.topic, timeout_s=timeout_s)
        try:
            self._producer = KafkaProducer(
                bootstrap_servers=self._settings.bootstrap_servers, **producer_config(self._settings)
            )
        except KafkaError as error:
            raise KafkaUnreachableError(
                f"Kafka at {self._settings.bootstrap_servers} does not answer ({type(error).__name__})"
            ) from error

    def send(self, clip: _Clip, message: ClipMessage) -> None:
        """Hand a clip to the producer; what becomes of it comes to the inbox."""
        from kafka.errors import KafkaError

        if not self._carried:
            self._heard_at = time.monotonic()
        self._carried[clip.path] = clip
        self._carried_bytes += clip.stamp.size
        key, value, headers = encode(message)
        try:
            # No timestamp: Kafka counts retention from it, and a clip may have been created long ago.
            future = self._producer.send(self._settings.topic, key=key, value=value, headers=headers)
        except KafkaError as error:
            self._inbox.put(_Delivery(clip, -1, -1, error))
            return
        future.add_callback(lambda told: self._inbox.put(_Delivery(clip, told.partition, told.offset, None)))
        future.add_errback(lambda error: self._inbox.put(_Delivery(clip, -1, -1, error)))

    def landed(self, clip: _Clip) -> None:
        """Take note that the broker's answer for a clip has come."""
        self._heard_at = time.monotonic()
        if self._carried.pop(clip.path, None):
            self._carried_bytes -= clip.stamp.size

    def flush(self, timeout_s: float) -> None:
        """Wait for what is on its way, at most so long."""
        from kafka.errors import KafkaTimeoutError

        if self._producer is not None:
            with contextlib.suppress(KafkaTimeoutError):
                self._producer.flush(timeout_s)

    def disconnect(self) -> None:
        """Give up the producer; clips that it still carries come to the inbox as failed."""
        from kafka.errors import KafkaTimeoutError

        if self._producer is not None:
            producer, self._producer = self._producer, None
            try:
                producer.close(timeout=0)
            except KafkaTimeoutError:
                # Its flush gives up before the thread is told to end (kafka-python 3.0.12).
                producer._sender.force_close()


def producer_config(settings: Settings) -> dict[str, Any]:
    """Give the settings of the Kafka producer, addresses aside: nothing that delivery rests on is left to defaults."""
    return {
        "client_id": "genres-folder-producer",
        "acks": "all",
        "enable_idempotence": True,
        "max_in_flight_requests_per_connection": 5,
        "allow_auto_create_topics": False,
        "max_request_size": max_message_bytes(settings),
        "request_timeout_ms": 10_000,
        # How long the client itself tries; afterwards the file is read and sent again.
        "delivery_timeout_ms": 120_000,
        "max_block_ms": 10_000,
        "bootstrap_timeout_ms": int(_CONNECT_S * 1000),
        "reconnect_backoff_max_ms": 2_000,
        "metrics_enabled": False,
    }


class _Display:
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

    def __enter__(self) -> "_Display":
        if self._console.is_terminal:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def say(self, line: str) -> None:
        """Print a line that stays."""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def show(self, counts: str, clips: int, size: int) -> None:
        """Show the counts, with the rate of the last seconds."""
        now = time.monotonic()
        if now - self._history[-1][0] > 0.5:
            self._history.append((now, clips, size))
        while len(self._history) > 1 and now - self._history[0][0] > _REPORT_S:
            self._history.popleft()
        then, clips_then, size_then = self._history[0]
        seconds = max(now - then, 0.1)
        rate = f"{(clips - clips_then) / seconds:.1f} clips/s, {(size - size_then) / 1e6 / seconds:.1f} MB/s"
        if self._console.is_terminal:
            self._progress.update(self._task, description=f"{counts}; {rate}")
        elif counts != self._last and now >= self._next_line_at:
            self._next_line_at, self._last = now + _REPORT_S, counts
            self.say(f"{counts}; {rate}")


def _watchable(folder: Path) -> Path:
    """Give the folder's real path, or say what is wrong with it."""
    if not folder.exists():
        raise GenresError(f"folder {display_path(folder)} does not exist: make it, or name another to watch")
    if not folder.is_dir():
        raise GenresError(f"{display_path(folder)} is a file: name the folder that it is in")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise GenresError(f"folder {display_path(folder)} cannot be listed: give this user the right to")
    return folder.resolve()


def _clips(root: Path, complain: Any) -> Iterator[Path]:
    """Give the paths of the folder's clips: those in `root` and those in its sub-folders."""
    try:
        entries = sorted(root.iterdir())
    except OSError as error:
        raise GenresError(
            f"folder {display_path(root)} cannot be listed any more ({error.strerror}): bring it back and start again"
        ) from error
    for entry in entries:
        if _is_clip(entry, root):
            yield entry
        elif _is_genre_folder(entry, root):
            try:
                inside = sorted(entry.iterdir())
            except OSError as error:
                complain(
                    entry,
                    f"folder {display_path(entry)} cannot be listed ({error.strerror}): give this user the right to",
                )
                continue
            yield from (path for path in inside if _is_clip(path, root))


def _is_clip(path: Path, root: Path) -> bool:
    return (
        path.suffix.lower() in SUFFIXES
        and not path.name.startswith(".")
        and (path.parent == root or _is_genre_folder(path.parent, root))
        and not _leads_out(path, root)
        # A named pipe called x.wav would block whoever opens it.
        and path.is_file()
    )


def _is_genre_folder(path: Path, root: Path) -> bool:
    return (
        path.parent == root
        and not path.name.startswith(".")
        and path.name != ERROR_FOLDER
        and path.is_dir()
        and not _leads_out(path, root)
    )


def _leads_out(path: Path, root: Path) -> bool:
    return path.is_symlink() and not path.resolve().is_relative_to(root)


def _stamp(path: Path) -> tuple[_Stamp, float] | None:
    """Give a regular file's stamp and for how many seconds it has been there unchanged; None if there is none."""
    try:
        info = path.stat()
    except OSError:
        return None
    if not stat.S_ISREG(info.st_mode):
        return None
    # A file moved or copied here may carry an old mtime; the inode's change time is that of its arrival.
    age_s = max(0.0, time.time() - max(info.st_ctime, info.st_mtime))
    return _Stamp(info.st_size, info.st_mtime_ns), age_s


def _move_aside(path: Path, folder: Path) -> Path:
    """Move the file to `folder`, under another name if there is one of that name."""
    folder.mkdir(exist_ok=True)
    target, number = folder / path.name, 0
    while target.exists():
        number += 1
        target = folder / f"{path.stem}.{number}{path.suffix}"
    return path.rename(target)


def _key(path: Path) -> str:
    r"""Spell a path as text for the ledger; bytes that are not UTF-8 become ``\xff``."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
