"""Code broken on purpose, and the tests that must notice it; ``tests/unit/test_mutations.py`` sees whether they do.

As a program it runs the named tests on the code as it is, and each of them with its mutation: one module is loaded with
one place of its source replaced. Nothing on disk is changed. Each run is forked from this process, which has imported
what other people's libraries take seconds for and nothing of the project's. Child processes of a test are not mutated,
so the named tests start none.
"""

import importlib
import importlib.abc
import importlib.machinery
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import CodeType, ModuleType
from typing import NamedTuple

_CHECKS = "tests/unit/test_checks_fail.py::test_it_fails_where_it_must_and_passes_beside_it"


class Mutation(NamedTuple):
    """One place of the code, what it becomes, and the test that fails then."""

    module: str
    before: str
    """Stands in the module's source exactly once."""
    after: str
    test: str


MUTATIONS = {
    "first write wins, off": Mutation(
        "genres.store.database",
        "statement = self._insert(table).on_conflict_do_nothing().returning(*keys)",
        "statement = self._insert(table)\n"
        "        changed = {column.name: column for column in statement.excluded if not column.primary_key}\n"
        "        statement = statement.on_conflict_do_update(index_elements=keys, set_=changed).returning(*keys)",
        "tests/unit/test_stream_ledger.py::test_a_replay_changes_nothing[sqlite]",
    ),
    "BEGIN IMMEDIATE, off": Mutation(
        "genres.store.database",
        '"BEGIN IMMEDIATE"',
        '"BEGIN"',
        "tests/unit/test_database.py::test_threads_queue_and_lose_nothing",
    ),
    "a table is written in its place": Mutation(
        "genres.store.lake",
        "        self.files.rename(temporary, path)\n        return path",
        "        self.files.pipe_file(path, sink.getvalue().to_pybytes())\n        return path",
        "tests/unit/test_lake.py::test_a_table_that_cannot_be_renamed_is_seen_by_nobody",
    ),
    "a rename in place of the commit": Mutation(
        "genres.store.batch_tables",
        '[commit.path for commit in commits if commit.path.startswith(f"{self.feature_folder(version)}/")]',
        "sorted(self.lake.files.ls(self.feature_folder(version), detail=False)) if commits else []",
        "tests/unit/test_lake.py::test_a_part_that_was_renamed_and_not_published_is_read_by_nobody",
    ),
    "auto_offset_reset is 'earliest'": Mutation(
        "streaming_sensors.kafka_clips",
        'auto_offset_reset="none"',
        'auto_offset_reset="earliest"',
        "tests/unit/test_kafka_clips.py::test_offsets_that_retention_took_are_an_error_and_never_passed_over[0]",
    ),
    "the reconciler, off": Mutation(
        "streaming_sensors.sensors",
        "repair = dataclasses.replace(wanted, new=(), retry=retry)",
        "repair = dataclasses.replace(wanted, new=(), retry=())",
        "tests/unit/test_streaming_definitions.py::test_the_reconciler_asks_again_for_what_a_killed_run_left",
    ),
    "a draining run takes up nothing that was left": Mutation(
        "streaming_sensors.stream_run",
        ".retry[:1]",
        ".retry[:0]",
        "tests/unit/test_stream_run.py::test_a_range_that_a_killed_run_left_is_taken_before_new_ones",
    ),
    "the fence, off": Mutation(
        "genres.store.stream_ledger.leases",
        "if current != token:",
        "if token < 0:",
        "tests/unit/test_stream_ledger.py::test_a_holder_that_was_overtaken_is_fenced[sqlite]",
    ),
    "a shard's run takes every partition": Mutation(
        "streaming_sensors.offset_plan",
        "return kafka_partition % self.of == self.number",
        "return True",
        "tests/unit/test_stream_run.py::test_a_shards_run_keeps_to_its_partitions",
    ),
    "shards share a lease": Mutation(
        "genres.store.stream_ledger.leases",
        "return (_LEASE.topic == topic) & (_LEASE.shard == shard)",
        "return _LEASE.topic == topic",
        "tests/unit/test_stream_ledger.py::test_each_shard_has_a_lease_and_tokens_of_its_own[sqlite]",
    ),
    "completeness of the features, off": Mutation(
        "genre_assets.audio_features",
        "not lacking and not surplus and stored.is_unique,",
        "True,",
        f"{_CHECKS}[audio_features-complete]",
    ),
    "completeness of the stream, off": Mutation(
        "streaming_sensors.stream_checks",
        'not lacking, "; ".join(',
        'True, "; ".join(',
        f"{_CHECKS}[stream_predictions-complete]",
    ),
    "completeness of a range, off": Mutation(
        "streaming_sensors.range_work",
        '"complete",\n            not lacking,',
        '"complete",\n            True,',
        f"{_CHECKS}[streaming_results-batch_checks]",
    ),
}


class _Mutant(importlib.machinery.SourceFileLoader):
    """Loads a module with one place of its source replaced."""

    def __init__(self, name: str, path: str, mutation: Mutation) -> None:
        super().__init__(name, path)
        self._mutation = mutation

    def get_code(self, fullname: str) -> CodeType:
        """Compile the mutated source, whatever bytecode is cached."""
        source = self.get_source(fullname) or ""
        places = source.count(self._mutation.before)
        assert places == 1, (
            f"{fullname} has {places} places that read {self._mutation.before!r}: keep the mutation true"
        )
        return compile(source.replace(self._mutation.before, self._mutation.after), self.path, "exec")


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the module that is to be mutated, and leaves all others to Python."""

    def __init__(self, mutation: Mutation) -> None:
        self._mutation = mutation

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return the module's spec with a loader that mutates it."""
        if fullname != self._mutation.module:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        assert spec and spec.origin
        spec.loader = _Mutant(fullname, spec.origin, self._mutation)
        return spec


_LIBRARIES = (
    *(
        "alembic.command",
        "dagster",
        "dagster_pyspark",
        "hypothesis",
        "kafka",
        "kafka.admin",
        "matplotlib.figure",
        "pandas",
    ),
    *("pyarrow.dataset", "pyarrow.parquet", "pytest", "requests", "rich.console", "sqlalchemy", "soundfile", "yaml"),
)


def run_all() -> dict[str, tuple[int, str]]:
    """Run the named tests unmutated, under the empty name, and each with its mutation; return exit code and output."""
    for library in _LIBRARIES:
        importlib.import_module(library)
    tests = sorted({mutation.test for mutation in MUTATIONS.values()})
    found = {"": _run(tests, None)}
    return found | {name: _run([mutation.test], mutation) for name, mutation in MUTATIONS.items()}


def _run(tests: Sequence[str], mutation: Mutation | None) -> tuple[int, str]:
    with tempfile.TemporaryFile() as output:
        pid = os.fork()
        if pid == 0:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            os._exit(_pytest(tests, mutation))
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        output.seek(0)
        return code, output.read().decode(errors="replace")


def _pytest(tests: Sequence[str], mutation: Mutation | None) -> int:
    import pytest

    if mutation is not None:
        assert mutation.module not in sys.modules, f"{mutation.module} is imported already"
        sys.meta_path.insert(0, _Finder(mutation))
    code = pytest.main(["-q", "-p", "no:cacheprovider", *tests])
    sys.stdout.flush()
    sys.stderr.flush()
    return int(code)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(run_all()))
