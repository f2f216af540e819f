"""Names of Spark's jobs: threads that were started alike do not take each other's."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from spark.job_names import named_jobs


def test_threads_of_one_pool_have_names_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    from pyspark.sql.connect.client.core import SparkConnectClient
    from pyspark.sql.connect.session import SparkSession
    from pyspark.util import inheritable_thread_target

    monkeypatch.setattr("pyspark.sql.is_remote", lambda: True)
    monkeypatch.setattr(SparkSession, "_set_default_and_active_session", lambda *_: None)
    client: Any = object.__new__(SparkConnectClient)
    client.thread_local = threading.local()
    spark: Any = object.__new__(SparkSession)
    spark._client = client  # a session without a server
    both = threading.Barrier(2, timeout=30)

    def names(_: int) -> tuple[list[str], list[str]]:
        with named_jobs(spark, "alike, in both"):
            both.wait()
            found = sorted(client.get_tags()), [one.type_url for _, one in client.thread_local.user_context_extensions]
            both.wait()
        both.wait()
        return found if not client.get_tags() else (["left"], [])

    with named_jobs(spark, "before"):
        pass  # what a thread has had is what the pool's are started with
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(inheritable_thread_target(spark)(names), range(2)))
    assert found == [(["alike in both"], ["/alike in both"])] * 2
    assert client.get_tags() == set()
