"""The nemesis: faults of every kind in a seeded order, one after the other and two at once, while clips flow."""

import random
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

import psutil

from genres.errors import GenresError
from tests.faults.faults import FAULTS
from tests.faults.oracle import stored_counts
from tests.faults.system import System
from tests.faults.tables import Case

EVERY_S = 0.5
AFTER_S = 2.0
"""For how long after a fault is healed what is dropped counts for the recovery from it, in seconds."""
TWO_AT_ONCE = "two at once"
_SHARE_OF_TWO = 0.25
_SHARE_WITHOUT_REST = 0.5


@dataclass
class Strike:
    """One time that the nemesis struck."""

    occasion: str
    kind: str
    what: str
    hashes: set[str] = field(default_factory=set)
    """Clips that were dropped from its beginning until the next one began."""
    awaited: set[str] = field(default_factory=set)
    """Those of them that were dropped before it was healed or shortly after: recovery is when they have their rows."""
    healed_at: float | None = None
    recovery_s: float | None = None
    missed: str = ""
    """Why it could not be injected."""


class Nemesis:
    """Injects faults, and notes how long it takes each time until what was dropped has its rows.

    Parameters
    ----------
    seed
        Of the order of the faults and the pauses; when processes come by at seams is not in its hands.
    say
        Takes a line for each strike.
    """

    def __init__(self, system: System, *, seed: int, say: Callable[[str], None]) -> None:
        self._system, self._random, self._say = system, random.Random(seed), say
        self.strikes = [Strike("calm", "none", "none")]
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._began = time.monotonic()

    def run(self, minutes: float) -> None:
        """Strike for so long, and go on until all that was dropped has its rows or patience ends."""
        until = time.monotonic() + 60 * minutes
        threads = [threading.Thread(target=self._drop), threading.Thread(target=self._watch, args=(until + 600,))]
        for thread in threads:
            thread.start()
        try:
            while time.monotonic() < until:
                time.sleep(self._random.uniform(1, 5))
                self._strike()
                if self._random.random() > _SHARE_WITHOUT_REST:
                    self._rest(until)
        finally:
            self._done.set()
            for thread in threads:
                thread.join()

    def cases(self) -> list[Case]:
        """What has become of each strike's clips; those that found no moment are left out."""
        system, topic, cases = self._system, self._system.settings.topic, []
        for strike in self.strikes:
            if strike.missed or not strike.hashes or strike.recovery_s is None:
                continue
            good, bad = system.traffic.of(strike.occasion)
            counts = stored_counts(system.stream.database, topic, good, bad, only=strike.hashes)
            cases.append(Case(strike.kind, counts, strike.recovery_s))
        return cases

    def waiting(self) -> list[str]:
        """The strikes whose clips have not all got their rows."""
        return [strike.what for strike in self.strikes if strike.healed_at is not None and strike.recovery_s is None]

    def _strike(self) -> None:
        chosen = [self._random.choice(list(FAULTS.values()))]
        if chosen[0].lasts_s and self._random.random() < _SHARE_OF_TWO:
            chosen.append(self._random.choice([fault for fault in FAULTS.values() if not fault.lasts_s]))
        what = " + ".join(fault.name for fault in chosen)
        kind = what if len(chosen) == 1 else TWO_AT_ONCE
        strike = Strike(f"{len(self.strikes)}", kind, what)
        lasts = self._random.uniform(0.5, 1.0)
        with self._lock:
            self.strikes.append(strike)
        try:
            with ExitStack() as injected:
                for one in chosen:
                    injected.enter_context(one.inject(self._system))
                    time.sleep(one.lasts_s * lasts)
        # No run was at work, nobody came by, who was to be struck ended just before, or what the second one asks is
        # what the first one holds.
        except (AssertionError, psutil.NoSuchProcess, GenresError) as error:
            strike.missed = str(error).splitlines()[0]
            self._tell(f"{what}: not injected ({strike.missed})")
        with self._lock:
            strike.healed_at = time.monotonic()

    def _rest(self, until: float) -> None:
        while self.waiting() and time.monotonic() < until:
            time.sleep(0.5)

    def _drop(self) -> None:
        while not self._done.is_set():
            with self._lock:
                strike = self.strikes[-1]
                sha256 = self._system.traffic.drop(strike.occasion)
                strike.hashes.add(sha256)
                if strike.healed_at is None or time.monotonic() - strike.healed_at < AFTER_S:
                    strike.awaited.add(sha256)
            time.sleep(EVERY_S)

    def _watch(self, give_up_at: float) -> None:
        while True:
            there, now = self._system.settled(), time.monotonic()
            with self._lock:
                open_ones = [strike for strike in self.strikes if strike.recovery_s is None]
                for strike in open_ones:
                    if strike.healed_at is None or now - strike.healed_at < AFTER_S:
                        continue
                    if strike.awaited <= there:
                        strike.recovery_s = now - strike.healed_at
                        if not strike.missed:
                            clips = len(strike.awaited)
                            self._tell(f"{strike.what}: {clips} clips, recovered in {strike.recovery_s:.1f} s")
                dropped = {sha256 for strike in self.strikes for sha256 in strike.hashes}
                # Rows may be there before the last strike's recovery is looked at.
                all_there = dropped <= there and not self.waiting()
            if self._done.is_set() and (all_there or now > give_up_at):
                return
            time.sleep(0.5)

    def _tell(self, line: str) -> None:
        self._say(f"{time.monotonic() - self._began:7.1f} s  {line}")
