"""Answers to single clips: a champion that stays loaded, and the session that it lives in."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from genres.settings import Settings
from genres.store.champions import newest_change
from genres.store.database import Database
from genres.store.lake import Lake
from genres.store.ledger import dataset_meant, registered_dataset
from genres.store.model_registry import ModelRegistry

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from spark.prepared_scorer import PreparedScorer

_T = TypeVar("_T")


class Answerer:
    """Answers clips, one at a time, with the champion of a dataset.

    A champion is loaded when it is first asked, and again when it has changed or the server has forgotten the session,
    as one that was started again has. Everything of Spark's happens in one thread, since Connect's MLlib finds its
    session by the thread that opened it.

    Parameters
    ----------
    settings
        Addresses, limits, and the dataset that is meant where none is named.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._database = Database(settings.database)
        self._lake = Lake.of(settings)
        self._spark: SparkSession | None = None
        self._loaded: dict[str, tuple[int, PreparedScorer]] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="answers")

    def warm_up(self) -> "Future[None]":
        """Load the champion that is meant, so that the first clip need not wait for it."""

        def load() -> None:
            self._prepared("")

        return self._thread.submit(load)

    def answer(self, data: bytes, *, file_name: str, dataset: str = "") -> dict[str, Any]:
        """Answer one clip.

        Parameters
        ----------
        data
            The whole file.
        file_name
            Its name: its suffix says what it should hold, and it stands in the answer.
        dataset
            Whose champion answers; empty for the dataset that is meant.

        Returns
        -------
        dict
            What a prediction table's row has, with ``file_name``, and ``tags``: the ten likeliest of musicnn's, if the
            model reads them.

        Raises
        ------
        RejectedAudio
            If it is no audio that is read.
        GenresError
            If there is no champion, or a part of the stack does not answer.
        """
        return self._run(lambda: self._answer(data, file_name, dataset))

    def close(self, *, timeout_s: float) -> bool:
        """Let go of models and session.

        Returns
        -------
        bool
            False if a clip is still being answered after `timeout_s`: the thread goes on, and the process with it.
        """
        ended = self._thread.submit(self._let_go)
        self._thread.shutdown(wait=False)
        try:
            ended.result(timeout_s)
        except TimeoutError:
            return False
        return True

    def _run(self, work: Callable[[], _T]) -> _T:
        return self._thread.submit(work).result()

    def _answer(self, data: bytes, file_name: str, dataset: str) -> dict[str, Any]:
        from genres.audio.clip_features import clip_features

        prepared = self._prepared(dataset)
        clip = clip_features(
            data,
            file_suffix=Path(file_name).suffix,
            feature_set=prepared.scorer.feature_set,
            max_clip_s=self._settings.max_clip_s,
        )
        answer = prepared.score({**clip.values, **clip.windows})
        return {"file_name": file_name, **answer, "tags": _tags(clip.values)}

    def _prepared(self, dataset: str) -> "PreparedScorer":
        from spark.prepared_scorer import PreparedScorer
        from spark.scoring import Scorer
        from spark.session import open_session, session_config, still_knows

        self._database.check_migrated()
        settings = self._settings
        meant = dataset_meant(self._database, **settings.meaning(dataset))
        change = newest_change(self._database, meant)
        # Asked before each clip, which takes milliseconds: a query to a server that is gone is tried for a quarter of
        # an hour, and of a session that was closed for its idleness the client does not know.
        if self._spark is not None and not still_knows(self._spark, remote=settings.remote):
            self._let_go()
        known = self._loaded.get(meant)
        if known is not None and known[0] == change:
            return known[1]
        entry = registered_dataset(self._database, meant)
        champion = ModelRegistry(settings.tracking_uri).champion(meant)
        if self._spark is None:
            self._spark = open_session(session_config(settings, app_name="genres page"))
        if known is not None:
            known[1].close()
        scorer = Scorer(champion, trained_on=entry, lake=self._lake)
        prepared = PreparedScorer(scorer, spark=self._spark, lake=self._lake, settings=settings)
        self._loaded[meant] = (change, prepared)
        return prepared

    def _let_go(self) -> None:
        """Drop the models and stop the session, of which the client would open no other else."""
        from spark.session import stop_session

        for _, prepared in self._loaded.values():
            prepared.close()
        self._loaded.clear()
        if self._spark is not None:
            stop_session(self._spark, remote=self._settings.remote)
            self._spark = None


def _tags(values: dict[str, float]) -> dict[str, float]:
    """Return the likeliest of the tags that musicnn heard, by name; none if it did not listen."""
    heard = {name.removeprefix("tag_").replace("_", " "): value for name, value in values.items() if name[:4] == "tag_"}
    return dict(sorted(heard.items(), key=lambda found: -found[1])[:10])
