"""A few minutes of the nemesis in every test run; an hour of it by hand (``make nemesis MINUTES=60 SEED=…``)."""

import os

import pytest

from genres.settings import Settings
from tests.faults.nemesis import Nemesis
from tests.faults.oracle import examine
from tests.faults.system import running_system
from tests.faults.tables import fault_table, publish

TOPIC = "test_nemesis"


@pytest.mark.timeout(0)
def test_the_nemesis_finds_nothing(
    stack: Settings, tmp_path_factory: pytest.TempPathFactory, capfd: pytest.CaptureFixture[str]
) -> None:
    minutes = float(os.environ.get("NEMESIS_MINUTES") or 1.5)
    # One order in every test run, so that a failure is the change's; any other by hand.
    seed = int(os.environ.get("NEMESIS_SEED") or 749592)

    def say(line: str) -> None:
        with capfd.disabled():
            print(line, flush=True)  # noqa: T201

    folder = tmp_path_factory.mktemp("nemesis")
    with running_system(stack, folder, TOPIC, seed=seed, patience_s=30, INLINE_LIMIT_BYTES="60000") as system:
        say(f"\nnemesis: {minutes:g} minutes, seed {seed}")
        nemesis = Nemesis(system, seed=seed, say=say)
        nemesis.run(minutes)
        system.assert_recovers(300)
        system.wait_until_planned_out(300)
        cases = nemesis.cases()
        with capfd.disabled():
            publish(f"The nemesis, {minutes:g} minutes", f"Seed {seed}.\n\n{fault_table(cases)}")
        _, problems = examine(system.settings, good=system.traffic.good, bad=system.traffic.bad)
        assert problems == []
        assert nemesis.waiting() == []
        assert cases, "nothing was injected"
