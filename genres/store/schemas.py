"""What each stored table holds: its columns' names, kinds and meanings. Every engine's schema is made from these.

SQL's tables are made in ``genres.store.tables``, Arrow's schemas here, Spark's in ``spark.extraction``, and what
Dagster shows in ``genres_dagster.columns``. Migrations have columns of their own: they say what a table was then.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import pyarrow as pa

Kind = Literal["string", "smallint", "int", "bigint", "double", "boolean", "timestamp", "json", "array<array<float>>"]
"""Spark SQL's names of types. A timestamp is in UTC; ``json`` is of SQL tables only, and arrays of the others."""


@dataclass(frozen=True)
class Column:
    """A column of a stored table."""

    name: str
    kind: Kind
    description: str
    nullable: bool = False
    key: bool = False
    """Whether it is, alone or with others, the table's primary key."""
    max_length: int | None = None
    """Longest string that SQL takes, in characters; None for any."""

    def as_key(self) -> "Column":
        """Return the column as one of the primary key."""
        return replace(self, key=True)

    def as_nullable(self) -> "Column":
        """Return the column as one that may be empty."""
        return replace(self, nullable=True)


@dataclass(frozen=True)
class Table:
    """A stored table."""

    name: str
    description: str
    columns: tuple[Column, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The columns' names."""
        return tuple(column.name for column in self.columns)


def arrow_schema(columns: Iterable[Column]) -> "pa.Schema":
    """Make the columns' Arrow schema. Each field may be empty, as Spark, too, writes them."""
    import pyarrow as pa

    types = {
        "string": pa.string(),
        "smallint": pa.int16(),
        "int": pa.int32(),
        "bigint": pa.int64(),
        "double": pa.float64(),
        "boolean": pa.bool_(),
        "timestamp": pa.timestamp("us", tz="UTC"),
        "array<array<float>>": pa.list_(pa.list_(pa.float32())),
    }
    return pa.schema([(column.name, types[column.kind]) for column in columns])


_DATASET = Column("dataset", "string", "The dataset's id.", max_length=40)
_SHA256 = Column("sha256", "string", "Of the clip's bytes.", max_length=64)
_FILE_NAME = Column("file_name", "string", "As found; data, never a path.")
_IS_SYNTHETIC = Column("is_synthetic", "boolean", "Whether the clips are synthetic sound.")
_RUN_ID = Column("run_id", "string", "The Dagster run.", max_length=64)
_STREAM_RUN_ID = Column("run_id", "string", "The Dagster run.")
_STAGE = Column("stage", "string", "What refused the clip.", max_length=40)
_LENGTH = Column("length", "bigint", "Samples at the feature set's sample rate.")
_FEATURE_VERSION = Column(
    "feature_version",
    "string",
    "Feature set, its version and the library it relies on; of sets that are joined, each.",
    max_length=200,
)
_MODEL_NAME = Column("model_name", "string", "Name in the model registry.")
_MODEL_VERSION = Column("model_version", "int", "Version in the model registry.")
_ANSWER = (
    Column("predicted_genre", "string", "The champion's answer."),
    Column("probability", "double", "Of the predicted genre."),
    Column("probabilities", "json", "Of each genre."),
    Column(
        "over_time",
        "json",
        "Of each window of the clip the probability of each genre, with window_s and hop_s, start_s of the first, and "
        "genres; a clip shorter than a window is one. Empty where only the whole clip was scored.",
        nullable=True,
    ),
    Column(
        "is_calibrated",
        "boolean",
        "Whether probabilities say how often they are right: by a temperature fitted to answers about clips that were "
        "not learnt from, or, of models older than that, as the classifier has them. False for the softmax of raw "
        "scores.",
    ),
    Column(
        "is_uncertain",
        "boolean",
        "Whether the probability is below the one from which the model is right as often as was asked for; empty for "
        "models that have none.",
        nullable=True,
    ),
    Column(
        "distance",
        "double",
        "How far the sound is from all that the model learnt from, in units of its threshold; empty for models that "
        "have none.",
        nullable=True,
    ),
    Column(
        "is_unlike",
        "boolean",
        "Whether the distance is above 1: unlike anything learnt, such as noise, silence or speech, so that the genre "
        "means nothing.",
        nullable=True,
    ),
    _IS_SYNTHETIC,
    _FEATURE_VERSION,
)
_TOPIC = Column("topic", "string", "The Kafka topic.")
_KAFKA_PARTITION = Column("kafka_partition", "int", "Partition of the topic.")
_KAFKA_OFFSET = Column("kafka_offset", "bigint", "Offset in it.")
_PARTITION_KEY = Column(
    "partition_key", "string", "Its offset range, <topic>:<topic id>:<Kafka partition>:<start>-<end>."
)
_REFUSED = Column("reason", "string", "Why the clip was refused; empty for a good one.", nullable=True)
_REASON = Column("reason", "string", "Why the clip was refused.")
_REASON_CODE = Column("reason_code", "string", "The reason's code; an empty text in older rows.", max_length=40)

REFUSED_CODE = replace(
    _REASON_CODE, description="The reason's code; empty for a good clip, and in older files.", nullable=True
)
"""Of the stream's features: files from before it was kept have no such column."""

TRACK_ID = Column("track_id", "string", "Unique within the dataset.")
GENRE = Column("genre", "string", "The label: the folder's name.")
TRACK = (TRACK_ID.as_key(), GENRE, _SHA256)
"""What every table of a dataset's tracks says of them."""

RAW_AUDIO = Table(
    "raw_audio",
    "The manifest: every clip of a dataset, accepted or quarantined.",
    (
        TRACK_ID.as_key(),
        GENRE,
        _FILE_NAME,
        Column("path", "string", "On HDFS; empty for a quarantined clip.", nullable=True),
        _SHA256,
        Column("md5", "string", "For comparison with published checksums."),
        Column("bytes", "bigint", "Size of the file."),
        Column("duration_s", "double", "Seconds, from the header that the gate checked.", nullable=True),
        Column("sample_rate", "int", "Hertz.", nullable=True),
        Column("channels", "smallint", "1 to 8.", nullable=True),
        Column("status", "string", "accepted or quarantined."),
        Column("reason", "string", "Why it was quarantined.", nullable=True),
    ),
)

TRACK_SPLIT = Table(
    "track_split",
    "Which tracks models are trained on, chosen by and judged on.",
    (*TRACK, Column("part", "string", "train, valid, test or excluded.")),
)

STREAM_CLIP = (
    _KAFKA_PARTITION.as_key(),
    _KAFKA_OFFSET.as_key(),
    replace(_FILE_NAME, description="As the producer found it; data, never a path."),
    Column("genre", "string", "The true genre, where the folder named one.", nullable=True),
    Column("created_at", "timestamp", "When the clip came into the watched folder, UTC.", nullable=True),
    Column("suffix", "string", "Of the file's name, with its dot."),
)
"""What a message of the topic says of its clip."""


def feature_columns(names: Iterable[str]) -> tuple[Column, ...]:
    """Return the columns that a feature set computes."""
    return tuple(Column(name, "double", "As the feature set defines it.") for name in names)


def window_columns(names: Iterable[str]) -> tuple[Column, ...]:
    """Return the columns of windows, one a feature set; rows older than they are have none."""
    kind: Kind = "array<array<float>>"
    return tuple(Column(name, kind, "Of each window the set's columns, in order.", nullable=True) for name in names)


def extracted(
    features: Iterable[str], lengths: Iterable[str] = ("length",), windows: Iterable[str] = ()
) -> tuple[Column, ...]:
    """Return what extraction adds to a clip's own columns; a refused clip has a reason, and no length and features.

    Parameters
    ----------
    features
        Names of the feature set's columns.
    lengths
        Names of the columns of the clip's length; several if sets of several sample rates are joined.
    windows
        Names of the columns of the clip's windows.
    """
    computed = (
        *(replace(_LENGTH, name=name) for name in lengths),
        *feature_columns(features),
        *window_columns(windows),
    )
    return (*(column.as_nullable() for column in computed), _SHA256, _FEATURE_VERSION, _REFUSED, REFUSED_CODE)


def audio_features(features: Iterable[str], windows: Iterable[str] = ()) -> Table:
    """Describe the features of a dataset's clips; the refused ones are in ``quarantine`` instead.

    Parameters
    ----------
    features
        Names of the feature set's columns.
    windows
        Names of the columns of the clips' windows.
    """
    columns = (*TRACK, _LENGTH, *feature_columns(features), *window_columns(windows), _FEATURE_VERSION)
    return Table("audio_features", "Features of a dataset's accepted clips.", columns)


def stream_features(features: Iterable[str], windows: Iterable[str] = ()) -> Table:
    """Describe the features of an offset range's clips, refused ones among them.

    Parameters
    ----------
    features
        Names of the feature set's columns.
    windows
        Names of the columns of the clips' windows.
    """
    columns = (*STREAM_CLIP, *extracted(features, windows=windows))
    return Table("stream_features", "Features of an offset range's clips.", columns)


DATASETS = Table(
    "datasets",
    "The labelled datasets; one partition of the batch assets each.",
    (
        _DATASET.as_key(),
        Column("source_folder", "string", "The folder that its clips come from."),
        _IS_SYNTHETIC,
        Column("feature_sets", "string", "Names of the feature sets that its models are trained on, with commas."),
        Column("registered_at", "timestamp", "When it was loaded last, UTC."),
        Column("chosen_at", "timestamp", "When it was loaded or chosen last, UTC: the newest is the current one."),
    ),
)

LAKE_COMMITS = Table(
    "lake_commits",
    "The ledger: which Parquet on HDFS is published.",
    (
        Column("commit_id", "int", "Grows with each commit.", key=True),
        _DATASET,
        Column("table_name", "string", "raw_audio, audio_features or track_split.", max_length=40),
        Column("path", "string", "On HDFS."),
        Column("row_count", "int", "Rows under the path."),
        Column("fingerprint", "string", "SHA-256 of the content: equal for equal content.", max_length=64),
        _RUN_ID,
        Column("committed_at", "timestamp", "When it was published, UTC."),
    ),
)

QUARANTINE = Table(
    "quarantine",
    "Clips that were refused, and why.",
    (
        _DATASET.as_key(),
        replace(
            TRACK_ID, description="Unique within the dataset; an empty text in rows older than this column."
        ).as_key(),
        _FILE_NAME.as_key(),
        _SHA256.as_key(),
        replace(_STAGE, description="raw_audio (the gate) or audio_features (decoding, features).").as_key(),
        _REASON,
        _REASON_CODE,
        _RUN_ID,
        Column("quarantined_at", "timestamp", "When it was refused, UTC."),
    ),
)

BATCH_PREDICTIONS = Table(
    "batch_predictions",
    "The champion's prediction for each track of a dataset.",
    (
        _DATASET.as_key(),
        TRACK_ID.as_key(),
        Column(
            "sha256",
            "string",
            "Of the audio that was scored; an empty text in rows older than this column.",
            max_length=64,
            key=True,
        ),
        _MODEL_VERSION.as_key(),
        _MODEL_NAME,
        Column("part", "string", "Part of the split: only test tracks say how good the model is.", max_length=8),
        GENRE,
        *_ANSWER,
        _RUN_ID,
        Column("predicted_at", "timestamp", "When the row was made, UTC."),
        Column(
            "stale_since",
            "timestamp",
            "When a load found that this audio was replaced or taken out of the dataset, UTC; empty while it is there.",
            nullable=True,
        ),
    ),
)

CHAMPION_CHANGES = Table(
    "champion_changes",
    "Who made which version the champion, when and why.",
    (
        Column("change_id", "int", "Grows with each change.", key=True),
        _DATASET,
        _MODEL_NAME,
        replace(_MODEL_VERSION, description="The version that the alias champion points at since."),
        Column("previous_version", "int", "The version that it pointed at before.", nullable=True),
        Column("action", "string", "training, promote or rollback.", max_length=8),
        Column("changed_by", "string", "The user and the host, or the asset."),
        Column("why", "string", "The reason that was given, or the result of the comparison."),
        _RUN_ID.as_nullable(),
        Column("changed_at", "timestamp", "UTC."),
    ),
)

SENT_FILES = Table(
    "sent_files",
    "The producer's memory: the watched files that the broker has confirmed.",
    (
        Column("host", "string", "Of the producer; empty in rows older than this column.", key=True),
        Column("path", "string", "Absolute.", key=True),
        Column("size", "bigint", "Bytes."),
        Column("mtime_ns", "bigint", "When the file was changed last, in nanoseconds since 1970."),
        Column("ctime_ns", "bigint", "When its inode was changed last, in nanoseconds since 1970.", nullable=True),
        Column("inode", "bigint", "Number of its inode.", nullable=True),
        _SHA256,
        _TOPIC,
        Column("topic_id", "string", "Kafka's id of the topic that it was sent to.", max_length=64, nullable=True),
        _KAFKA_PARTITION,
        _KAFKA_OFFSET,
        Column("sent_at", "timestamp", "When the broker confirmed it, UTC."),
    ),
)

CONFIRMED_MESSAGES = Table(
    "confirmed_messages",
    "Messages that the broker confirmed and that no row of sent_files stands for: of a file that was sent again, or "
    "changed, since, and of clips sent again from the quarantine. They say which clip a lost offset held.",
    (
        _TOPIC.as_key(),
        Column("topic_id", "string", "Kafka's id of the topic.", max_length=64, key=True),
        _KAFKA_PARTITION.as_key(),
        _KAFKA_OFFSET.as_key(),
        _SHA256,
        Column("path", "string", "Of the file; its name alone where it came from the quarantine."),
    ),
)

PRODUCERS = Table(
    "producers",
    "The folder producers and their last signs of life.",
    (
        _TOPIC.as_key(),
        Column("host", "string", "Where it runs.", key=True),
        Column("folder", "string", "The folder that it watches.", key=True),
        Column("pid", "int", "Its process."),
        Column("started_at", "timestamp", "UTC."),
        Column("beat_at", "timestamp", "Its last sign of life, UTC."),
        Column("ended_at", "timestamp", "When it ended in order, UTC.", nullable=True),
        Column("last_error", "string", "What it waits for, or what ended it.", nullable=True),
        Column("sent", "int", "Files that the broker confirmed."),
        Column("refused", "int", "Files that are no audio."),
        Column("waiting", "int", "Files that are neither sent nor refused yet."),
    ),
)

STREAM_RANGES = Table(
    "stream_ranges",
    "The stream's ledger: which offset ranges are planned, committed, split or lost.",
    (
        _PARTITION_KEY.as_key(),
        _TOPIC,
        Column("topic_id", "string", "Kafka's id of the topic; a recreated topic has another.", max_length=64),
        _KAFKA_PARTITION,
        Column("start_offset", "bigint", "First offset."),
        Column("end_offset", "bigint", "Offset after the last."),
        Column("state", "string", "planned, committed, split or lost.", max_length=9),
        Column("parent_key", "string", "The range that was split into this one and others.", nullable=True),
        Column("attempts", "int", "Attempts asked for or begun."),
        Column("failures", "int", "Attempts that ended without a commit for a reason that may be the clips'."),
        _STREAM_RUN_ID.as_nullable(),
        Column("planned_at", "timestamp", "When it was planned, UTC."),
        Column("heartbeat_at", "timestamp", "Last sign of an attempt, UTC.", nullable=True),
        Column("committed_at", "timestamp", "When it was committed first, UTC.", nullable=True),
        Column("feature_path", "string", "Of its features on HDFS.", nullable=True),
        _FEATURE_VERSION.as_nullable(),
        _MODEL_NAME.as_nullable(),
        _MODEL_VERSION.as_nullable(),
        Column("clip_count", "int", "Clips of the first commit.", nullable=True),
        Column("predicted_count", "int", "Those that it predicted.", nullable=True),
        Column("quarantined_count", "int", "Those that it refused.", nullable=True),
        Column("duplicate_count", "int", "Those that had a row already.", nullable=True),
        Column("reason", "string", "What is out of the ordinary.", nullable=True),
        Column("acknowledged_at", "timestamp", "When a person acknowledged its loss, UTC.", nullable=True),
    ),
)

STREAM_LEASES = Table(
    "stream_leases",
    "Who drains a topic. The token grows with every new holder and fences the ones before.",
    (
        _TOPIC.as_key(),
        Column("shard", "int", "Which share of its Kafka partitions; 0 if one run drains all.", key=True),
        Column("holder", "string", "The Dagster run, or the resident process, that drains; empty if none does."),
        Column("token", "int", "What the holder shows with each commit."),
        Column("expires_at", "timestamp", "When another run may take over, UTC."),
    ),
)

STREAM_PREDICTIONS = Table(
    "stream_predictions",
    "The champion's prediction for each distinct clip of the stream.",
    (
        _SHA256.as_key(),
        _MODEL_NAME.as_key(),
        _MODEL_VERSION.as_key(),
        replace(_DATASET, description="The dataset that the model was trained on."),
        replace(_FILE_NAME, description="As the producer found it; data, never a path."),
        Column("genre", "string", "The true genre, where the folder named one.", nullable=True),
        *_ANSWER,
        _TOPIC,
        _KAFKA_PARTITION,
        _KAFKA_OFFSET,
        _PARTITION_KEY,
        _STREAM_RUN_ID,
        Column("event_time", "timestamp", "When the clip came into the watched folder, UTC."),
        Column("predicted_at", "timestamp", "When the row was committed, UTC."),
        Column("latency_s", "double", "Seconds between the two."),
    ),
)

STREAM_QUARANTINE = Table(
    "stream_quarantine",
    "Clips of the stream that were refused, and why.",
    (
        _SHA256.as_key(),
        Column("suffix", "string", "Of its name, which a verdict is about as well.", max_length=16, key=True),
        Column("judged_by", "string", "Version of what refused it; empty in older rows.", max_length=240, key=True),
        replace(_FILE_NAME, description="As the producer found it; data, never a path."),
        replace(_STAGE, description="producer or stream."),
        _REASON,
        _REASON_CODE,
        Column("genre", "string", "The true genre, where the folder named one.", nullable=True),
        replace(_TOPIC, description="The Kafka topic; empty in rows that do not say it.").as_key(),
        _KAFKA_PARTITION.as_nullable(),
        _KAFKA_OFFSET.as_nullable(),
        Column("kept_path", "string", "Where on HDFS its bytes are kept.", nullable=True),
        _PARTITION_KEY.as_nullable(),
        _STREAM_RUN_ID.as_nullable(),
        Column("quarantined_at", "timestamp", "When it was refused, UTC."),
        Column("closed_at", "timestamp", "When the clip was accepted, or judged again, UTC.", nullable=True),
    ),
)

STREAM_CHECKS = Table(
    "stream_checks",
    "The checks of each committed range, summed up by one check on the asset.",
    (
        _PARTITION_KEY.as_key(),
        Column("check_name", "string", "Which check.", key=True, max_length=60),
        Column("passed", "boolean", "Whether the range passed."),
        Column("expected", "string", "What should be.", nullable=True),
        Column("actual", "string", "What is.", nullable=True),
        Column("checked_at", "timestamp", "When the range was committed, UTC."),
    ),
)
