"""One stream: its topic, its folder, and the names that Dagster has for its assets, partitions, jobs and sensors.

The default stream's names are the bare ones; another stream's carry its name.
"""

from dataclasses import dataclass

import dagster as dg

from genres.settings import Settings, StreamSettings
from genres.store import ledger
from genres.store.database import Database


@dataclass(frozen=True)
class Stream:
    """A stream as Dagster knows it."""

    settings: StreamSettings

    @property
    def topic(self) -> str:
        """The Kafka topic of its clips."""
        return self.settings.topic

    @property
    def clips(self) -> dg.AssetKey:
        """The topic as an asset."""
        return self._key("audio_clips")

    @property
    def features(self) -> dg.AssetKey:
        """The features of its clips."""
        return self._key("stream_features")

    @property
    def predictions(self) -> dg.AssetKey:
        """The champion's predictions for its clips."""
        return self._key("stream_predictions")

    @property
    def results(self) -> dg.AssetKey:
        """The figures of its predictions."""
        return self._key("streaming_results")

    @property
    def group(self) -> str:
        """The group of its assets."""
        return self.named("streaming")

    @property
    def offset_ranges(self) -> dg.DynamicPartitionsDefinition:
        """The partitions of its features and predictions.

        Keys are ``<topic>:<topic id>:<Kafka partition>:<start>-<end>``: the same key always means the same clips. They
        are data that users have, in event logs, tables and queries, so that they are never written in another way;
        what people read beside them is `streaming_sensors.run_tags.short_name`.
        """
        return dg.DynamicPartitionsDefinition(name=self.named("offset_range"))

    def named(self, what: str) -> str:
        """Return the name of something that the stream has one of: a job, a sensor, an op."""
        return f"{self.settings.name}_{what}" if self.settings.name else what

    def dataset(self, settings: Settings, database: Database) -> str:
        """Return the id of the dataset whose champion scores the stream.

        The stream's own or the settings', if they name one; else the one that was loaded from the settings' folder,
        else the current one. The folder itself may be gone.
        """
        return ledger.dataset_meant(database, **settings.scored_by(self.settings))

    def _key(self, what: str) -> dg.AssetKey:
        return dg.AssetKey([self.settings.name, what] if self.settings.name else [what])
