"""The page itself: four views, what each shows, and what happens when somebody touches it.

Names of files and genres come from outside: they are shown as text, in cells and labels, never as HTML or Markdown.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from genres.audio.gate import SUFFIXES
from genres.audio.rejections import RejectedAudio
from genres.errors import GenresError
from genres.file_names import display_name
from genres.settings import Settings
from genres.store import predictions
from genres.store.champions import ChampionChange, Champions
from genres.store.database import Database
from genres.store.lake import Lake
from genres.store.ledger import dataset_meant, registered_datasets
from genres.store.model_registry import ModelRegistry
from genres.store.stream_ledger import results
from genres_page import clips, pictures
from genres_page.answers import Answerer

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_NEWEST = 200
"""Rows of the stream that the page has in view."""
ANY = "all"
"""What filters by genre offer besides the genres."""

VERSION_COLUMNS = ("version", "alias", "classifier", "valid macro-F1", "test accuracy", "why")
TRACK_COLUMNS = ("track", "genre", "predicted", "probability", "part", "uncertain", "unlike")
STREAM_COLUMNS = (
    "time",
    "file",
    "genre",
    "predicted",
    "probability",
    "seconds",
    "uncertain",
    "unlike",
    "range",
    "offset",
)


class Page:
    """What stands behind the views.

    Parameters
    ----------
    settings
        Addresses, and the dataset that is meant where none is chosen.
    answerer
        Who answers dropped clips.
    """

    def __init__(self, settings: Settings, answerer: Answerer) -> None:
        self.settings = settings
        self.answerer = answerer
        self.database = Database(settings.database)
        self.lake = Lake.of(settings)

    def answer(
        self, path: str | None
    ) -> tuple[dict[str, float], str, "Figure | None", "Figure | None", dict[str, float]]:
        """Answer the clip in a file: probabilities, a line about them, and pictures; nothing for no file.

        Raises
        ------
        GenresError
            If it is no audio that is read, or there is nobody to answer.
        """
        if path is None:
            return {}, "", None, None, {}
        data = Path(path).read_bytes()
        try:
            answer = self.answerer.answer(data, file_name=Path(path).name)
        except RejectedAudio as error:
            raise GenresError(f"refused: {error}") from error
        return (
            answer["probabilities"],
            in_words(answer),
            pictures.over_time(answer),
            pictures.spectrogram(data),
            answer["tags"],
        )

    def streamed(self, genre: str, *, uncertain: bool, wrong: bool) -> "pd.DataFrame":
        """Return the newest rows of the streams, the newest first."""
        rows = [
            row
            for row in reversed(results.predictions(self.database, limit=_NEWEST))
            if genre in (ANY, row["predicted_genre"])
            and (not uncertain or row["is_uncertain"] or row["is_unlike"])
            and (not wrong or (row["genre"] is not None and row["genre"] != row["predicted_genre"]))
        ]
        table = [
            {
                "time": f"{row['predicted_at'].astimezone():%H:%M:%S}",
                "file": display_name(row["file_name"]),
                "seconds": round(row["latency_s"], 2),
                "range": row["partition_key"],
                "offset": row["kafka_offset"],
                **_answer_cells(row),
            }
            for row in rows
        ]
        return _frame(table, STREAM_COLUMNS)

    def stream_now(self) -> str:
        """Return a line about the streams' lag and latency."""
        from streaming_sensors.sensors import lag
        from streaming_sensors.topic import topic_state

        parts = []
        for stream in self.settings.streams:
            newest = results.predictions(self.database, topic=stream.topic, limit=_NEWEST)
            try:
                waiting = f"{lag(self.database, topic_state(self.settings, stream.topic))} clips wait"
            except GenresError as error:
                waiting = str(error)
            parts.append(f"{stream.topic}: {waiting}")
            if newest:
                middle = median(row["latency_s"] for row in newest)
                parts[-1] += f", {middle:.2f} s from file to row in the middle (n = {len(newest)})"
        return "; ".join(parts)

    def tracks(
        self, dataset: str, genre: str, *, uncertain: bool, wrong: bool
    ) -> tuple["pd.DataFrame", "Figure | None"]:
        """Return a dataset's tracks with what the champion says of them, and the confusions of all of them."""
        rows = self._current_predictions(dataset)
        table = [
            {"track": row["track_id"], "part": row["part"] or "", **_answer_cells(row)}
            for row in rows
            if genre in (ANY, row["genre"])
            and (not uncertain or row["is_uncertain"] or row["is_unlike"])
            and (not wrong or row["genre"] != row["predicted_genre"])
        ]
        return _frame(table, TRACK_COLUMNS), pictures.confusion(rows) if rows else None

    def refused(self, dataset: str) -> "pd.DataFrame":
        """Return what batch and stream refused, with the reasons."""
        from genres.store import quarantine

        rows = [
            {"file": display_name(row.file_name), "where": "batch", "reason": row.reason}
            for row in quarantine.refused(self.database, dataset)
        ]
        rows += [
            {"file": display_name(row["file_name"]), "where": "stream", "reason": row["reason"]}
            for row in results.quarantine(self.database)
        ]
        return _frame(rows, ("file", "where", "reason"))

    def versions(self, dataset: str) -> "pd.DataFrame":
        """Return the versions of a dataset's model with their figures."""
        rows = [
            {
                "version": row["version"],
                "alias": row["alias"],
                "classifier": row["classifier"] or "",
                "valid macro-F1": _figure(row["valid_macro_f1"], row["valid_tracks"]),
                "test accuracy": _figure(row["test_accuracy"], row["test_tracks"]),
                "why": row["why"] or "",
            }
            for row in self._champions(dataset).rows()
        ]
        return _frame(rows, VERSION_COLUMNS)

    def card(self, dataset: str, version: int) -> str:
        """Return a version's model card, as Markdown that this project wrote."""
        found = ModelRegistry(self.settings.tracking_uri).versions(dataset)
        return next((one.description or "" for one in found if int(one.version) == version), "")

    def promote(self, dataset: str, version: int, why: str) -> str:
        """Make a version the champion; return what was done."""
        return _done(self._champions(dataset).promote(version, why=why))

    def rollback(self, dataset: str, why: str) -> str:
        """Make the version the champion that was it before; return what was done."""
        return _done(self._champions(dataset).rollback(why=why))

    def datasets(self) -> list[str]:
        """Return the ids of all datasets, the one that is meant first."""
        meant = dataset_meant(self.database, **self.settings.meaning())
        return sorted((entry.dataset for entry in registered_datasets(self.database)), key=lambda name: name != meant)

    def genres(self, dataset: str) -> list[str]:
        """Return the genres of a dataset's tracks; of the dataset that is meant, if none is named."""
        return sorted({row["genre"] for row in self._current_predictions(dataset or next(iter(self.datasets()), ""))})

    def track_names(self) -> list[str]:
        """Return the tracks of the dataset that is meant, each as ``<dataset>: <track>``."""
        return [
            f"{dataset}: {row['track_id']}"
            for dataset in self.datasets()[:1]
            for row in self._current_predictions(dataset)
        ]

    def play_track(self, dataset: str, track: str) -> str:
        """Return a file with a track's bytes, for the player."""
        return self._file(*clips.of_track(self.settings, dataset, track))

    def play_streamed(self, partition_key: str, offset: int) -> str:
        """Return a file with a stream's clip, for the player."""
        return self._file(*clips.of_stream(self.settings, partition_key, offset))

    def _file(self, data: bytes, file_name: str) -> str:
        # What a clip is called never becomes a path; its suffix is one of those that are read.
        suffix = Path(file_name).suffix.lower()
        with tempfile.NamedTemporaryFile(suffix=suffix if suffix in SUFFIXES else "", delete=False) as file:
            file.write(data)
        return file.name

    def _champions(self, dataset: str) -> Champions:
        return Champions(ModelRegistry(self.settings.tracking_uri), self.lake, self.database, dataset)

    def _current_predictions(self, dataset: str) -> list[dict[str, Any]]:
        return predictions.batch_predictions(self.database, dataset, current=True)


def in_words(answer: dict[str, Any]) -> str:
    """Return a line about an answer: how sure it is, whose it is, and what it may not be."""
    said = [f"{answer['predicted_genre']} ({answer['probability']:.2f})"]
    if answer["is_unlike"]:
        said.append("unlike anything learnt: this may be no music, and the genre means nothing")
    elif answer["is_uncertain"]:
        said.append("uncertain")
    said.append(f"{answer['model_name']} version {answer['model_version']}")
    if answer["is_synthetic"]:
        said.append("trained on synthetic sound, which says nothing about music")
    return "; ".join(said)


def _done(change: ChampionChange) -> str:
    return f"version {change.model_version} is the champion now; it was version {change.previous_version}"


def _answer_cells(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "genre": row["genre"] or "",
        "predicted": row["predicted_genre"],
        "probability": round(row["probability"], 2),
        "uncertain": "yes" if row["is_uncertain"] else "",
        "unlike": "yes" if row["is_unlike"] else "",
    }


def _figure(value: float | None, count: int | None) -> str:
    return "" if value is None else f"{value:.2f} (n = {count})"


def _frame(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> "pd.DataFrame":
    import pandas as pd

    return pd.DataFrame(list(rows), columns=list(columns))
