"""Names for Spark's jobs: what a block of code runs them for, shown in Spark's UI.

Connect has no job descriptions for its clients: it describes each job by the first 128 characters of the request. What
it has are tags, which its page "Connect" shows beside each request and its jobs, and the REST interface with each job;
and extensions of a request's context, which stand in front of the plan, so that the jobs' list shows the name's
beginning. Both belong to the calling thread: two candidates in training do not take each other's names.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@contextmanager
def named_jobs(spark: "SparkSession", name: str) -> Iterator[None]:
    """Name the jobs that this thread starts in the block.

    Parameters
    ----------
    spark
        A Connect session.
    name
        Candidate, asset or range, and the dataset. Commas are left out, which separate tags.
    """
    from google.protobuf.any_pb2 import Any  # type: ignore[import-untyped]

    name = name.replace(",", "")
    thread = spark.client.thread_local
    tags: set[str] = getattr(thread, "tags", set())
    extensions: list[tuple[str, Any]] = getattr(thread, "user_context_extensions", [])
    # Others than before: the threads of `inheritable_thread_target` share the ones that were there when it was called.
    thread.tags, thread.user_context_extensions = set(tags), list(extensions)
    spark.addTag(name)
    # The server takes no notice of extensions that it does not know. The slash makes it an address of a type.
    spark.client.add_threadlocal_user_context_extension(Any(type_url=f"/{name}"))
    try:
        yield
    finally:
        thread.tags, thread.user_context_extensions = tags, extensions
