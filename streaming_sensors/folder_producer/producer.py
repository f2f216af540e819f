"""The producer's loop: what changed in the folder, what is whole, what the broker confirmed.

A file counts as sent only when the broker has confirmed it, and is remembered after that. A producer that is killed in
between sends the file again when it is started again, which the sink absorbs; it never forgets one.
"""

import hashlib
import logging
import os
import queue
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from genres.audio import gate
from genres.audio.gate import RejectedAudio, check_size, inspect, max_clip_bytes
from genres.errors import GenresError
from genres.file_names import display_path, unicode_name
from genres.kafka_client import KafkaUnreachableError
from genres.plurals import counted, waits
from genres.settings import Settings
from genres.store.database import Database
from genres.store.stream_ledger import sent_files
from genres.store.stream_ledger.commits import QuarantinedClip, quarantine_clip
from genres.store.stream_ledger.producers import BEAT_S, Producer, beat
from genres.store.stream_ledger.sent_files import SentFile
from streaming_sensors.envelope import ClipMessage
from streaming_sensors.folder_producer.changes import Changes
from streaming_sensors.folder_producer.claim_check import ClaimChecks
from streaming_sensors.folder_producer.display import REPORT_S, Display
from streaming_sensors.folder_producer.folder import (
    ERROR_FOLDER,
    Listing,
    Stamp,
    came_at,
    find_stamp,
    is_clip,
    ledger_key,
    list_folder,
    move_aside,
    shows_writers,
    watchable,
    writer_of,
    writers_below,
)
from streaming_sensors.folder_producer.outlet import CONNECT_S, ClipInFlight, Delivery, Outlet, is_refusal
from streaming_sensors.topic import TopicState, topic_state

_RESCAN_S = 3.0
_COMPRESSED = {suffix for suffix, container in gate.SUFFIXES.items() if container in {"FLAC", "MP3", "OGG", "AAC"}}
"""Suffixes of containers whose header does not say whether all bytes are there."""
_UNSURE_PATIENCE = 5
"""How many times ``settle_s`` such a file must be unchanged, and any other whose header has no true length (yet)."""
_PATIENCE = 20
"""How many times ``settle_s`` a file that is not whole by its header may stay unchanged before it is refused."""
_BLIND_PATIENCE = 200
"""The same where the system does not say whether somebody still writes the file."""
_PASS_S = 0.5
"""How long files are sent before the loop looks at what else is to do, in seconds."""
_WRITER_S = 1.0
"""How often a file is looked at again that somebody still writes, in seconds."""
_TRY_AGAIN_S = 10.0
_REST_S = 3.0
"""How long the database is left alone after it failed, in seconds."""
_ASK_TOPIC_S = 30.0
"""How often the topic is asked whether it is another one or has lost messages, in seconds."""
_FLUSH_S = 10.0
_MOST_SET_ASIDE = 1000
"""How many of the refused files are looked at again, in case somebody still writes them."""

_KAFKA, _KAFKA_WRITES, _HDFS, _FOLDER = "Kafka", "writing to Kafka", "HDFS", "the folder"
_READS, _WRITES, _BEATS = "reading the database", "writing to the database", "the sign of life in the database"


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
    whose name is then the genre; what is passed over is counted by its reason. It is sent when its size and times have
    not changed for ``settle_s`` and its header agrees with its bytes. A file whose header disagrees for twenty times
    as long is quarantined and moved to ``error/``, unless a process has it open for writing; where that cannot be
    seen, it is given two hundred times ``settle_s``. One that changes in ``error/`` comes back. A clip above
    ``inline_limit_bytes`` goes to HDFS and its message carries the path.

    Of compressed containers (FLAC, MP3, Ogg, ADTS), and where a length is missing or wrong as long as somebody records,
    the header does not say whether all bytes are there: a writer of those that pauses for longer than five times
    ``settle_s`` is taken to be done, unless the system shows that it still has the file open.

    A file that was sent is sent again if its content changes, and if the topic has lost its message (it was recreated,
    or retention was faster than the stream) and its clip has no row. The topic is asked about that when it is connected
    to, and every thirty seconds.

    Outages are waited out, each with a line when it begins and ends: Kafka, HDFS, the database (away, locked, its disk
    full), the folder itself, and files that cannot be read. Meanwhile ``producers`` says what is waited for.

    Parameters
    ----------
    settings
        Limits and addresses.
    folder
        The folder to watch. Files that were sent stay where they are.
    topic
        The Kafka topic, which has to be there.
    once
        Send what is there and end, instead of waiting for more; an outage ends it too.
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
        If the folder cannot be watched, or the topic or the tables are missing, at the start; with `once` also if
        Kafka, HDFS or the database does not answer, the broker refuses a clip or a file cannot be read.
    """
    # The client logs every attempt to connect; what matters of that is said here.
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    root = watchable(folder)
    database = Database.opened(settings.database)
    with Display(console) as display:
        return _FolderProducer(settings, root, topic, database, display, once=once, stop=stop).run()


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
    before: SentFile | None = None
    """What was sent from there with the same size and time: if its bytes are the same too, nothing is to be sent."""
    is_writer_said: bool = False
    """Whether people know that the file waits because somebody still writes it."""


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
        self._host, self._started_at = socket.gethostname(), datetime.now(UTC)
        self._inbox: _Inbox = queue.SimpleQueue()
        self._outlet = Outlet(settings, topic, on_delivery=self._inbox.put)
        self._changes = Changes(root, on_change=self._inbox.put, on_failure=self._inbox.put)
        self._claim_checks = ClaimChecks(settings)
        self._max_clip_bytes = max_clip_bytes(settings.max_clip_s)
        self._listing = Listing()
        self._waiting: dict[Path, _Waiting] = {}
        self._done: dict[Path, Stamp] = {}
        self._complained: dict[Path, Stamp | None] = {}
        self._watch_failures: set[type[Exception]] = set()
        self._set_aside: dict[Path, tuple[Path, Stamp]] = {}
        self._confirmed: list[SentFile] = []
        """What the broker has confirmed and the ledger does not know yet."""
        self._known: set[Path] = set()
        self._sent = self._sent_bytes = self._refused = 0
        self._topic_now: TopicState | None = None
        """The topic as it was when the files whose clips it lost were last looked for."""
        self._topic_next: TopicState | None = None
        """The topic as it is, as long as they were not looked for again."""
        self._topic_id, self._is_start = "", True
        self._lost: set[tuple[str, str]] = set()
        """Host and path of the files whose clips the topic has lost."""
        self._gone: set[str] = set()
        """Paths of those that are not in the folder any more, as far as people were told."""
        self._open_for_writing: dict[str, int] = {}
        self._writers_at = 0.0
        self._ask_topic_at = self._beat_at = 0.0
        self._write_at = self._claim_at = self._send_at = 0.0
        """Not before which to write to the database, to HDFS and to Kafka, on the monotonic clock."""

    def run(self) -> WatchReport:
        """Send until told to stop; with `once` until nothing is left to send."""
        begun = time.monotonic()
        give_up_at = begun + 2 * _PATIENCE * self._settings.settle_s
        ended_of: str | None = None
        try:
            self._beat()
            self._connect(timeout_s=_TRY_AGAIN_S)
            if not self._once:
                self._changes.start()
            rescan_at = begun
            while not self._stop.is_set():
                if time.monotonic() >= rescan_at:
                    took_s = self._rescan()
                    rescan_at = float("inf") if self._once else time.monotonic() + max(_RESCAN_S, 10 * took_s)
                self._remember_confirmed()
                nothing_due = self._send_whole_ones()
                if self._once and nothing_due and self._is_finished(give_up_at):
                    break
                if self._take_in(0.1):
                    rescan_at = 0.0
                self._connect(timeout_s=CONNECT_S)
                self._beat()
                self._display.show(self._counts(), self._sent, self._sent_bytes)
        except BaseException as error:
            ended_of = str(error) or type(error).__name__
            raise
        finally:
            self._changes.close()
            self._finish()
            self._beat(ended_of=ended_of, ends=True)
        return self._report(time.monotonic() - begun)

    def _report(self, seconds: float) -> WatchReport:
        """Print and return what was done; with `once` a file that could not be read is an error."""
        self._display.say(f"{self._counts()} in {seconds:.1f} s ({self._sent_bytes / 1e6:.1f} MB)")
        if self._once and self._complained and not self._stop.is_set():
            raise GenresError(
                f"{len(self._complained)} file(s) or folder(s) in {display_path(self._root)} could not be read, "
                f"{display_path(next(iter(self._complained)))} for one: see above why, and run again"
            )
        left = len(self._waiting) + self._outlet.in_flight
        return WatchReport(self._sent, self._sent_bytes, self._refused, left)

    def _is_finished(self, give_up_at: float) -> bool:
        """Whether there is no file left that will be whole soon."""
        now = time.monotonic()
        unsettled = any(waiting.settled_at > now for waiting in self._waiting.values())
        return not (self._outlet.in_flight or self._confirmed) and (not unsettled or now > give_up_at)

    def _worked(self, what: str, work: Callable[[], object]) -> bool:
        """Whether the work was done. What keeps it from being done is said once, and with `once` is the end."""
        # An OSError or RuntimeError comes from the clients of HDFS and Kafka.
        try:
            work()
        except GenresError as error:
            if self._once:
                raise
            self._display.begin_outage(what, str(error))
            return False
        except (OSError, RuntimeError) as error:
            if self._once:
                raise GenresError(f"{what} does not work ({error}): see to it, and run again") from error
            self._display.begin_outage(what, str(error))
            return False
        self._display.end_outage(what)
        return True

    def _take_in(self, timeout_s: float) -> bool:
        """Take everything from the inbox, waiting for the first; True if the whole folder should be looked at."""
        look_at_all, deadline = False, time.monotonic() + timeout_s
        while True:
            try:
                item = self._inbox.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                return look_at_all
            deadline = 0.0
            if isinstance(item, Delivery):
                self._settle(item)
            elif isinstance(item, Exception):
                if type(item) not in self._watch_failures:
                    self._watch_failures.add(type(item))
                    self._display.say(
                        f"the system cannot tell what changes in {display_path(self._root)} ({item}); it is looked "
                        f"through every {_RESCAN_S:g} s"
                    )
                look_at_all = True
            elif is_clip(item, self._root):
                look_at_all |= not self._notice(item)
            else:
                look_at_all |= os.path.isdir(item)  # noqa: PTH112  (Path.is_dir raises where it may not look)

    def _rescan(self) -> float:
        """Notice every clip of the folder, and forget the files that are gone; return how long it took, in seconds."""
        begun = time.monotonic()
        if not self._worked(_FOLDER, self._list):
            self._changes.restart()  # what comes back may be another folder
            return time.monotonic() - begun
        for folder, why in self._listing.unreadable.items():
            self._say_once(folder, why)
        self._bring_back()
        for path in self._listing.clips:
            if not self._notice(path):
                break
        there = {*self._listing.clips, *self._listing.unreadable}
        for memory in (self._done, self._waiting, self._complained):
            for path in [path for path in memory if path not in there and not os.path.exists(path)]:  # noqa: PTH110
                del memory[path]
        return time.monotonic() - begun

    def _list(self) -> None:
        self._listing = list_folder(self._root)

    def _bring_back(self) -> None:
        """Take a refused file that somebody still writes for a new one."""
        for moved, (path, stamp) in list(self._set_aside.items()):
            found = find_stamp(moved)
            if found is not None and found[0][:2] == stamp[:2]:
                continue
            del self._set_aside[moved]
            if found is None or os.path.lexists(path):
                continue
            try:
                moved.rename(path)
            except OSError as error:
                self._display.say(f"{display_path(moved)} has changed and cannot be moved back ({error})")
            else:
                self._display.say(f"{display_path(path)} has changed since it was refused: it is in its place again")
                self._listing.clips.append(path)

    def _notice(self, path: Path) -> bool:
        """Let the file wait until it is whole, unless this state of it was dealt with; False if nobody can say."""
        if self._outlet.carries(path):
            return True
        found = find_stamp(path)
        if found is None:
            return True
        stamp, age_s = found
        waiting = self._waiting.get(path)
        if self._done.get(path) == stamp or (waiting and waiting.stamp == stamp):
            return True
        rows: list[SentFile] = []
        if not self._worked(
            _READS, lambda: rows.extend(sent_files.sent_from(self._database, ledger_key(path), host=self._host))
        ):
            return False
        before = next((row for row in rows if row[:2] not in self._lost and self._may_be(row, stamp)), None)
        if before and before.ctime_ns in (None, stamp.ctime_ns) and before.inode in (None, stamp.inode):
            self._waiting.pop(path, None)
            self._done[path] = stamp
            self._known.add(path)
            return True
        since = time.monotonic() - age_s
        patience = _UNSURE_PATIENCE if path.suffix.lower() in _COMPRESSED else 1
        settled_at = since + patience * self._settings.settle_s
        self._waiting[path] = _Waiting(stamp, since, settled_at, not_before=settled_at, before=before)
        return True

    def _may_be(self, row: SentFile, stamp: Stamp) -> bool:
        """Whether what was sent may be this state of the file; of another host's file all has to be the same."""
        same = (row.topic, row.size, row.mtime_ns) == (self._topic, *stamp[:2])
        return same and (row.host in ("", self._host) or (row.ctime_ns, row.inode) == stamp[2:])

    def _send_whole_ones(self) -> bool:
        """Send what is settled and whole, as far as there is room in flight; True if all of it was dealt with."""
        pause_at = time.monotonic() + _PASS_S
        for path, waiting in list(self._waiting.items()):
            now = time.monotonic()
            if waiting.not_before > now:
                continue
            if (
                self._stop.is_set()
                or not self._outlet.connected
                # As long as the ledger takes nothing, what is sent would be sent again after a restart.
                or self._confirmed
                or now < max(self._write_at, self._send_at)
                or now > pause_at
                or not self._outlet.has_room(waiting.stamp.size)
            ):
                return False
            try:
                self._offer(path, waiting)
            except FileNotFoundError:
                self._waiting.pop(path, None)
            except OSError as error:
                why = f"{display_path(path)} cannot be read ({error.strerror}): give this user the right to"
                self._postpone(path, why)
            except MemoryError:
                self._waiting[path] = waiting  # wherever it ran out
                why = f"there is not enough memory for {display_path(path)} ({waiting.stamp.size:,} bytes): it waits"
                self._postpone(path, why)
        return all(waiting.not_before > time.monotonic() for waiting in self._waiting.values())

    def _offer(self, path: Path, waiting: _Waiting) -> None:
        """Send the file if it is whole, refuse it if it is settled and will not become so."""
        created_at = came_at(path)
        too_large = waiting.stamp.size > self._max_clip_bytes
        data = b"" if too_large else path.read_bytes()
        found = find_stamp(path)
        if found is None or found[0] != waiting.stamp or not (too_large or len(data) == waiting.stamp.size):
            del self._waiting[path]
            self._notice(path)
            return
        try:
            check_size(waiting.stamp.size, max_clip_s=self._settings.max_clip_s)
            header = inspect(data, suffix=path.suffix, max_clip_s=self._settings.max_clip_s)
        except RejectedAudio as rejected:
            self._doubt(path, waiting, rejected)
            return
        is_unsure = not header.is_length_sure or path.suffix.lower() in _COMPRESSED
        sure_at = waiting.unchanged_since + _UNSURE_PATIENCE * self._settings.settle_s
        if is_unsure and time.monotonic() < sure_at:
            waiting.settled_at = waiting.not_before = sure_at
            return
        if is_unsure and (pid := self._writers().get(os.path.realpath(path))) is not None:
            self._wait_for_writer(path, waiting, pid)
            return
        sha256 = hashlib.sha256(data).hexdigest()
        if waiting.before and waiting.before.sha256 == sha256:
            self._recognise(path, waiting.stamp, waiting.before)
            return
        message = ClipMessage(
            sha256,
            file_name=unicode_name(path.name),
            suffix=path.suffix.lower(),
            size=len(data),
            created_at=created_at,
            genre=self._genre(path),
            data=data,
        )
        self._send(path, waiting.stamp, message)

    def _genre(self, path: Path) -> str | None:
        return unicode_name(path.parent.name) if path.parent != self._root else None

    def _recognise(self, path: Path, stamp: Stamp, before: SentFile) -> None:
        """Note the new times of a file whose bytes were sent: its rights changed, say, or it came from a backup."""
        row = before._replace(host=self._host, ctime_ns=stamp.ctime_ns, inode=stamp.inode)
        if self._written(lambda: sent_files.remember(self._database, [row])):
            del self._waiting[path]
            self._done[path] = stamp
            self._known.add(path)

    def _send(self, path: Path, stamp: Stamp, message: ClipMessage) -> None:
        """Hand a whole file to the outlet, by way of HDFS if it is too large for a message."""
        if message.size > self._settings.inline_limit_bytes:
            checked: list[ClipMessage] = []
            if time.monotonic() >= self._claim_at and not self._worked(
                _HDFS, lambda: checked.append(self._claim_checks.check_in(message))
            ):
                # Or the small clips would wait for HDFS as well, with each large one again.
                self._claim_at = time.monotonic() + _TRY_AGAIN_S
            if not checked:
                self._waiting[path].not_before = self._claim_at
                return
            (message,) = checked
        # Out of the waiting ones first: if sending fails, the outlet's answer puts it back.
        del self._waiting[path]
        self._outlet.send(ClipInFlight(path, stamp, message.sha256, self._topic_id), message)

    def _doubt(self, path: Path, waiting: _Waiting, rejected: RejectedAudio) -> None:
        """Refuse a file that is no audio by its header, unless it may still become whole."""
        now = time.monotonic()
        patience = _PATIENCE if shows_writers(path) else _BLIND_PATIENCE
        patience_ends = waiting.unchanged_since + patience * self._settings.settle_s
        if not self._once and now < patience_ends:
            waiting.not_before = patience_ends
        elif (pid := writer_of(path)) is not None:
            self._wait_for_writer(path, waiting, pid)
        elif (found := find_stamp(path)) and found[0] != waiting.stamp:
            # Its writer ended while we looked for it.
            del self._waiting[path]
            self._notice(path)
        else:
            self._refuse(path, waiting.stamp, rejected)

    def _wait_for_writer(self, path: Path, waiting: _Waiting, pid: int) -> None:
        waiting.not_before = time.monotonic() + _WRITER_S
        if not waiting.is_writer_said:
            waiting.is_writer_said = True
            self._display.say(f"{display_path(path)} may not be whole, process {pid} still has it open: it waits")

    def _writers(self) -> dict[str, int]:
        """Return the files that are open for writing, looked for at most once in every look at what waits."""
        if time.monotonic() > self._writers_at:
            self._open_for_writing = writers_below(str(self._root))
            self._writers_at = time.monotonic() + _PASS_S
        return self._open_for_writing

    def _refuse(self, path: Path, stamp: Stamp, rejected: RejectedAudio) -> None:
        """Quarantine the file and move it out of the way; the row comes first, so that a crash repeats both."""
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        row = QuarantinedClip(
            sha256,
            unicode_name(path.name),
            "producer",
            rejected.reason,
            path.suffix.lower()[:16],
            gate.VERSION,
            genre=self._genre(path),
            topic=self._topic,
            reason_code=rejected.code.code,
        )
        if not self._written(lambda: quarantine_clip(self._database, row)):
            return
        del self._waiting[path]
        self._done[path] = stamp
        self._refused += 1
        refused = f"refused {display_path(path)}: {rejected.reason}"
        try:
            moved = move_aside(path, self._root / ERROR_FOLDER)
        except OSError as error:
            # It stays, and is not looked at again until it changes or the producer is started again.
            self._display.say(f"{refused}; it cannot be moved to {ERROR_FOLDER}/ ({error})")
        else:
            self._set_aside[moved] = (path, stamp)
            if len(self._set_aside) > _MOST_SET_ASIDE:
                del self._set_aside[next(iter(self._set_aside))]
            self._display.say(f"{refused}; it is in {display_path(moved.relative_to(self._root))}")

    def _settle(self, delivery: Delivery) -> None:
        """Let a confirmed clip be remembered, and one that failed wait again."""
        from kafka.errors import AuthorizationError, InvalidTimestampError, MessageSizeTooLargeError

        clip = delivery.clip
        self._outlet.landed(clip)
        if delivery.error is None:
            self._confirmed.append(
                SentFile(
                    self._host,
                    ledger_key(clip.path),
                    *clip.stamp,
                    clip.sha256,
                    self._topic,
                    clip.topic_id,
                    delivery.partition,
                    delivery.offset,
                    datetime.now(UTC),
                )
            )
            self._done[clip.path] = clip.stamp
            self._complained.pop(clip.path, None)
            self._display.end_outage(_KAFKA)
            self._display.end_outage(_KAFKA_WRITES)
            self._notice(clip.path)
            return
        waiting = self._waiting.setdefault(clip.path, _Waiting(clip.stamp, 0.0, 0.0, 0.0))
        if is_refusal(delivery.error):
            error = delivery.error
            if isinstance(error, (MessageSizeTooLargeError, AuthorizationError)):
                advice = (
                    f"run `genres up` to fit topic {self._topic!r} to GENRES_INLINE_LIMIT_BYTES, and check that this "
                    "user may write to it"
                )
            elif isinstance(error, InvalidTimestampError):
                advice = "set the clocks of this host and of the broker, which are too far apart"
            else:
                advice = f"the broker's log says why; see the settings of topic {self._topic!r}"
            why = (
                f"Kafka at {self._settings.bootstrap_servers} refuses {display_path(clip.path)} "
                f"({type(error).__name__}): {advice}"
            )
            if self._once:
                raise GenresError(why) from error
            if isinstance(error, MessageSizeTooLargeError):
                waiting.not_before = time.monotonic() + _TRY_AGAIN_S
                self._say_once(clip.path, why)
                return
            # It would refuse the others as well.
            self._send_at = time.monotonic() + _TRY_AGAIN_S
            self._display.begin_outage(_KAFKA_WRITES, why)
        # Whatever state the client is in now, a new one has none of it.
        self._outlet.disconnect()

    def _remember_confirmed(self) -> None:
        """Write down what the broker has confirmed."""
        rows = list(self._confirmed)
        if not rows or not self._written(lambda: sent_files.remember(self._database, rows)):
            return
        self._confirmed.clear()
        self._sent += len(rows)
        self._sent_bytes += sum(row.size for row in rows)
        for row in rows:
            self._lost -= {row[:2], ("", row.path)}
        now = self._topic_now
        if now and any(sent_files.topic_has_lost(row, now.topic_id, now.beginnings) for row in rows):
            # The topic had lost them before the ledger knew them, so the look at what it lost has missed them.
            self._topic_now, self._topic_next = None, self._topic_next or now

    def _written(self, work: Callable[[], object]) -> bool:
        """Whether the database took it; after a failure it is left alone for a while."""
        if time.monotonic() < self._write_at:
            return False
        worked = self._worked(_WRITES, work)
        if not worked:
            self._write_at = time.monotonic() + _REST_S
        return worked

    def _connect(self, *, timeout_s: float) -> None:
        """See that there is a connection and that the topic is the one we know, and say so while it is not."""
        if not self._outlet.connected:
            is_start, self._is_start = self._is_start, False
            try:
                self._topic_next = self._outlet.connect(timeout_s)
            except GenresError as outage:
                # A topic that is missing at the start is a mistake; later it may be made again.
                if self._once or (is_start and not isinstance(outage, KafkaUnreachableError)):
                    raise
                self._display.begin_outage(_KAFKA, self._waiting_for(str(outage)))
                return
            self._ask_topic_at = time.monotonic() + _ASK_TOPIC_S
            self._display.end_outage(_KAFKA)
        elif (silent_s := self._outlet.silent_s()) > REPORT_S:
            why = f"Kafka at {self._settings.bootstrap_servers} has not answered for {silent_s:.0f} s"
            self._display.begin_outage(_KAFKA, self._waiting_for(why))
        elif not self._once and time.monotonic() >= self._ask_topic_at:
            answers = self._worked(_KAFKA, self._ask_topic)
            self._ask_topic_at = time.monotonic() + (_ASK_TOPIC_S if answers else _TRY_AGAIN_S)
        if (found := self._topic_next) is not None:
            self._topic_id = found.topic_id
            known = self._topic_now and (self._topic_now.topic_id, self._topic_now.beginnings)
            if (found.topic_id, found.beginnings) == known or self._worked(_READS, lambda: self._offer_lost(found)):
                self._topic_now, self._topic_next = found, None

    def _ask_topic(self) -> None:
        self._topic_next = topic_state(self._settings, self._topic, timeout_s=CONNECT_S)
        if self._topic_next.topic_id != self._topic_id:
            self._outlet.disconnect()  # its sequence numbers are of the topic that is gone

    def _offer_lost(self, now: TopicState) -> None:
        """Let files be sent again whose clips the topic has lost before they had a row; say how many, and why."""
        lost = sent_files.lost(self._database, self._topic, now.topic_id, now.beginnings)
        self._lost = {row[:2] for row in lost}
        by_path: dict[str, list[SentFile]] = {}
        for row in lost:
            by_path.setdefault(row.path, []).append(row)
        again: Counter[str] = Counter()
        there: set[str] = set()
        for path in list_folder(self._root).clips if lost else ():
            found, rows = find_stamp(path), by_path.get(ledger_key(path), ())
            there.update(row.path for row in rows)
            of_it = [row for row in rows if found and self._may_be(row, found[0])]
            if of_it and not self._outlet.carries(path):
                self._done.pop(path, None)
                is_other = of_it[0].topic_id not in (None, now.topic_id)
                again["it was recreated" if is_other else "retention was faster than the stream"] += 1
        for why, count in again.items():
            are = f"{counted(count, 'clip')} {'is' if count == 1 else 'are'}"
            self._display.say(f"{are} sent again: topic {self._topic!r} has lost them unread ({why})")
        own = {row.path for row in lost if row.host == self._host and Path(row.path).is_relative_to(self._root)}
        if gone := own - there - self._gone:
            self._gone |= gone
            are = f"{counted(len(gone), 'clip')} {'is' if len(gone) == 1 else 'are'}"
            self._display.say(
                f"{are} lost: topic {self._topic!r} has lost them unread, and their files are gone; "
                f"{display_path(Path(min(gone)))} is one: drop them again"
            )

    def _waiting_for(self, why: str) -> str:
        return f"{why}; {waits(len(self._waiting) + self._outlet.in_flight, 'clip')}"

    def _beat(self, *, ends: bool = False, ended_of: str | None = None) -> None:
        """Record a sign of life now and then; one that sends once and ends is nobody's producer."""
        if self._once or (time.monotonic() < self._beat_at and not ends):
            return
        now = datetime.now(UTC)
        sign = Producer(
            self._topic,
            self._host,
            ledger_key(self._root),
            os.getpid(),
            self._started_at,
            now,
            now if ends else None,
            ended_of or self._display.outage,
            self._sent,
            self._refused,
            len(self._waiting) + self._outlet.in_flight,
        )
        self._worked(_BEATS, lambda: beat(self._database, sign))
        self._beat_at = time.monotonic() + BEAT_S

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
        self._write_at = 0.0
        self._remember_confirmed()
        if self._outlet.in_flight or self._confirmed:
            self._display.say(
                "clips that are not confirmed and remembered, which the next start sends again: "
                f"{self._outlet.in_flight + len(self._confirmed):,}"
            )

    def _postpone(self, path: Path, why: str) -> None:
        self._waiting[path].not_before = time.monotonic() + _TRY_AGAIN_S
        self._say_once(path, why)

    def _say_once(self, path: Path, why: str) -> None:
        """Print what is wrong with a file or folder, unless that was said of this state of it."""
        waiting = self._waiting.get(path)
        stamp = waiting.stamp if waiting else None
        if path not in self._complained or self._complained[path] != stamp:
            self._complained[path] = stamp
            self._display.say(why)

    def _counts(self) -> str:
        waiting = len(self._waiting) + self._outlet.in_flight
        passed_over = self._listing.passed_over_text()
        return f"{self._sent} sent, {self._refused} refused, {waiting} waiting, {len(self._known)} sent before" + (
            f"; passed over: {passed_over}" if passed_over else ""
        )
