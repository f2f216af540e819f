"""The page itself: four views, what each shows, and what happens when somebody touches it.

Names of files and genres come from outside: they are shown as text, in cells and labels, never as HTML or Markdown.
"""

import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
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
from streaming_sensors.metrics import NEWEST, latency

if TYPE_CHECKING:
    import pandas as pd
    from markdown_it import MarkdownIt
    from matplotlib.figure import Figure

_OLD_S = 1.0
"""How old what is said of the streams' state may be, in seconds."""
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
        self.files: set[str] = set()
        """What clips are played from, for Gradio to delete when it is old."""
        self._looking = threading.Lock()
        self._now = -_OLD_S, ""

    def answer(
        self, path: str | None
    ) -> tuple[dict[str, float], str, dict[str, Any] | None, "Figure | None", dict[str, float]]:
        """Answer the clip in a file: probabilities, a line about them, curve, spectrogram, tags; nothing for no file.

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
        samples = pictures.samples_of(data)
        return (
            answer["probabilities"],
            in_words(answer),
            pictures.curve(samples, answer["over_time"]),
            pictures.spectrogram(samples),
            answer["tags"],
        )

    def streamed(self, genre: str, *, uncertain: bool, wrong: bool) -> "pd.DataFrame":
        """Return the newest rows of the streams that are asked for, the newest first."""
        rows = results.predictions(
            self.database,
            predicted_genre=None if genre == ANY else genre,
            uncertain=uncertain,
            wrong=wrong,
            limit=NEWEST,
        )
        table = [
            {
                "time": f"{row['predicted_at'].astimezone():%H:%M:%S}",
                "file": display_name(row["file_name"]),
                "seconds": round(row["latency_s"], 2),
                "range": row["partition_key"],
                "offset": row["kafka_offset"],
                **_answer_cells(row),
            }
            for row in reversed(rows)
        ]
        return _frame(table, STREAM_COLUMNS)

    def stream_now(self) -> str:
        """Return a line about the streams' lag and latency, looked up once a second at most for all who look."""
        with self._looking:
            looked_at, line = self._now
            if time.monotonic() - looked_at > _OLD_S:
                line = "; ".join(self._stream_now(stream.topic) for stream in self.settings.streams)
                self._now = time.monotonic(), line
        return line

    def _stream_now(self, topic: str) -> str:
        from streaming_sensors.sensors import lag
        from streaming_sensors.topic import topic_state

        try:
            waiting = lag(self.database, topic_state(self.settings, topic))
            line = f"{topic}: {waiting} {'clip waits' if waiting == 1 else 'clips wait'}"
        except GenresError as error:
            line = f"{topic}: {error}"
        if measured := latency(self.database, topic):
            half, most = measured.quantiles_s[0.5], measured.quantiles_s[0.95]
            line += (
                f"; from file to row {half:.2f} s for half of the newest, {most:.2f} s for 95 % (n = {measured.clips})"
            )
        return line

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
        """Return what batch and stream refused, with the reasons and their codes."""
        from genres.store import quarantine

        rows = [
            {"file": display_name(row.file_name), "where": "batch", "code": row.reason_code, "reason": row.reason}
            for row in quarantine.refused(self.database, dataset)
        ]
        rows += [
            {
                "file": display_name(row["file_name"]),
                "where": "stream",
                "code": row["reason_code"],
                "reason": row["reason"],
            }
            for row in results.quarantine(self.database)
        ]
        return _frame(rows, ("file", "where", "code", "reason"))

    def versions(self, dataset: str) -> "pd.DataFrame":
        """Return the versions of a dataset's model with their figures."""
        rows = [
            {
                "version": row["version"],
                "alias": row["alias"],
                "classifier": row["classifier"] or "",
                "valid macro-F1": _figure(row["valid_macro_f1"], row["valid_tracks"]),
                "test accuracy": _accuracy(row["test_accuracy"], row["test_tracks"]),
                "why": row["why"] or "",
            }
            for row in self._champions(dataset).rows()
        ]
        return _frame(rows, VERSION_COLUMNS)

    def card(self, dataset: str, version: int) -> str:
        """Return a version's model card as HTML; what looks like HTML, a link or a picture in it is text."""
        found = ModelRegistry(self.settings.tracking_uri).versions(dataset)
        lacking = f"There is no version {version}."
        card = next((one.description or "" for one in found if int(one.version) == version), lacking)
        # Names of tracks and genres stand in it as they are.
        return str(_card_markdown().render(card))

    def promote(self, dataset: str, version: int, why: str) -> str:
        """Make a version the champion; return what was done."""
        return self._changed(self._champions(dataset).promote(version, why=why))

    def rollback(self, dataset: str, why: str) -> str:
        """Make the version the champion that was it before; return what was done."""
        return self._changed(self._champions(dataset).rollback(why=why))

    def _changed(self, change: ChampionChange) -> str:
        from genres_dagster.champion_changes import in_words, tell_dagster

        tell_dagster(self.settings, change)
        return in_words(change)

    def datasets(self) -> list[str]:
        """Return the ids of all datasets, the one that is meant first."""
        meant = dataset_meant(self.database, **self.settings.meaning())
        return sorted((entry.dataset for entry in registered_datasets(self.database)), key=lambda name: name != meant)

    def genres(self, dataset: str) -> list[str]:
        """Return the genres of a dataset's tracks."""
        return sorted({row["genre"] for row in self._current_predictions(dataset)})

    def streamed_genres(self) -> list[str]:
        """Return the genres that were predicted for clips of the streams."""
        return results.predicted_genres(self.database)

    def track_names(self) -> list[str]:
        """Return the tracks of the dataset that is meant, each as ``<dataset>: <track>``."""
        return [
            f"{dataset}: {row['track_id']}"
            for dataset in self.datasets()[:1]
            for row in self._current_predictions(dataset)
        ]

    def track_file(self, dataset: str, track: str) -> str:
        """Return a file with a track's bytes."""
        return self._file(*clips.of_track(self.settings, dataset, track))

    def play_track(self, dataset: str, track: str) -> tuple[str, dict[str, Any]]:
        """Return a file with a track's bytes for the player, and the curve of the answer that the table has."""
        rows = predictions.batch_predictions(self.database, dataset, track_id=track, current=True)
        over_time = rows[0]["over_time"] if rows else None
        return self._playable(*clips.of_track(self.settings, dataset, track), over_time)

    def play_streamed(self, partition_key: str, offset: int) -> tuple[str, dict[str, Any]]:
        """Return a file with a stream's clip for the player, and the curve of its answer."""
        over_time = results.over_time_at(self.database, partition_key, offset)
        return self._playable(*clips.of_stream(self.settings, partition_key, offset), over_time)

    def _playable(self, data: bytes, name: str, over_time: dict[str, Any] | None) -> tuple[str, dict[str, Any]]:
        return self._file(data, name), pictures.curve(pictures.samples_of(data), over_time)

    def _file(self, data: bytes, file_name: str) -> str:
        from gradio.utils import get_upload_folder

        # Files elsewhere are copied there before they are served, and stay where they were.
        folder = Path(get_upload_folder())
        folder.mkdir(parents=True, exist_ok=True)
        # What a clip is called never becomes a path; its suffix is one of those that are read.
        suffix = Path(file_name).suffix.lower()
        with tempfile.NamedTemporaryFile(dir=folder, suffix=suffix if suffix in SUFFIXES else "", delete=False) as file:
            self.files.add(file.name)
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


def _accuracy(value: float | None, count: int | None) -> str:
    """Write an accuracy with its 95 % interval by Wilson's method, which holds for few tracks and near 0 and 1."""
    from scipy.stats import binomtest

    if value is None or not count:
        return _figure(value, count)
    low, high = binomtest(round(value * count), count).proportion_ci(method="wilson")
    return f"{value:.2f}, 95 %: {low:.2f} to {high:.2f} (n = {count})"


def _card_markdown() -> "MarkdownIt":
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark", {"html": False}).enable("table").disable(["autolink", "image", "link"])


def _frame(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> "pd.DataFrame":
    import pandas as pd

    return pd.DataFrame(list(rows), columns=list(columns))
