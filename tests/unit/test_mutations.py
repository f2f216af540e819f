"""Tests of the tests: each mutation of the code makes its named test fail, which passes on the code as it is."""

import json
import re
import subprocess
import sys

import pytest

from genres.settings import PROJECT_DIR
from tests.mutations import MUTATIONS

Outcomes = dict[str, tuple[int, str]]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """Run everything in a process that has imported nothing of the project's yet."""
    found = tmp_path_factory.mktemp("mutations") / "outcomes.json"
    command = [sys.executable, "-m", "tests.mutations", str(found)]
    done = subprocess.run(command, cwd=PROJECT_DIR, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(found.read_text())


def test_the_named_tests_pass_on_the_code_as_it_is(outcomes: Outcomes) -> None:
    code, output = outcomes[""]
    assert code == 0, output
    assert f"{len({mutation.test for mutation in MUTATIONS.values()})} passed" in output


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutation_is_noticed(outcomes: Outcomes, name: str) -> None:
    code, output = outcomes[name]
    assert code == 1, output
    assert re.findall(r"^FAILED (\S+)", output, re.MULTILINE) == [MUTATIONS[name].test], output
