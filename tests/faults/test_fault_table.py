"""Each fault alone, while clips flow: every clip ends in its one row, and the stack recovers by itself."""

import threading
import time
from collections.abc import Iterator

import pytest

from genres.settings import Settings
from tests.faults.faults import FAULTS, Fault
from tests.faults.oracle import examine, stored_counts
from tests.faults.system import System, running_system
from tests.faults.tables import Case, fault_table, publish
from tests.stream_rig import wait_until

TOPIC = "test_fault_table"
LEAST_CLIPS = 16
EVERY_S = 0.25
PATIENCE_S = 300.0

cases: list[Case] = []


@pytest.fixture(scope="module")
def system(stack: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    folder = tmp_path_factory.mktemp("fault table")
    with running_system(stack, folder, TOPIC, seed=1, INLINE_LIMIT_BYTES="60000") as system:
        hashes = system.traffic.flow("start", clips=3, every_s=0)
        system.stream.wait_for(hashes)
        yield system


def marked(fault: Fault) -> object:
    marks = () if fault.in_every_run else pytest.mark.nemesis
    return pytest.param(fault, id=fault.name.replace(",", "").replace(" ", "-"), marks=marks)


@pytest.mark.parametrize("fault", map(marked, FAULTS.values()))
def test_every_clip_has_its_answer_once_whatever_fails(system: System, fault: Fault) -> None:
    hashes: set[str] = set()
    has_ended = threading.Event()

    def flow() -> None:
        while not has_ended.is_set() or len(hashes) < LEAST_CLIPS:
            hashes.add(system.traffic.drop(fault.name))
            time.sleep(EVERY_S)

    def have_rows() -> bool:
        return came <= system.settled()

    dropper = threading.Thread(target=flow)
    dropper.start()
    try:
        time.sleep(1)
        with fault.inject(system):
            time.sleep(fault.lasts_s)
            if fault.is_borne:
                came = set(hashes)
                wait_until(have_rows, patience_s=PATIENCE_S)
    finally:
        healed_at = time.monotonic()
        has_ended.set()
        came = set(hashes)
    wait_until(have_rows, patience_s=PATIENCE_S)
    recovery_s = time.monotonic() - healed_at
    dropper.join()
    came = set(hashes)
    wait_until(have_rows, patience_s=PATIENCE_S)
    system.assert_recovers(PATIENCE_S)
    counts = stored_counts(system.stream.database, TOPIC, *system.traffic.of(fault.name), only=came)
    cases.append(Case(fault.name, counts, recovery_s))
    assert counts.problems == []


def test_nothing_is_lost_doubled_or_damaged_after_all_of_them(system: System) -> None:
    publish("Each fault alone", fault_table(cases))
    system.wait_until_planned_out(PATIENCE_S)
    _, problems = examine(system.settings, good=system.traffic.good, bad=system.traffic.bad)
    assert problems == []
