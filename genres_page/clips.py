"""Where clips' bytes come from: a dataset's lie on HDFS, the stream's in Kafka or, if they are large, on HDFS."""

from dataclasses import asdict

from genres.errors import GenresError
from genres.settings import Settings
from genres.store.batch_tables import BatchTables
from genres.store.database import Database
from genres.store.lake import Lake
from genres.store.stream_ledger.values import PartitionKey
from streaming_sensors.kafka_clips import KafkaClips


def of_track(settings: Settings, dataset: str, track_id: str) -> tuple[bytes, str]:
    """Return a track's bytes and its file name.

    Raises
    ------
    GenresError
        If the dataset has no such track.
    """
    lake = Lake.of(settings)
    tracks = BatchTables(lake, Database(settings.database), dataset).accepted().set_index("track_id")
    if track_id not in tracks.index:
        raise GenresError(f"dataset '{dataset}' has no track '{track_id}' any more")
    track = tracks.loc[track_id]
    return lake.files.cat_file(str(track["path"])), str(track["file_name"])


def of_stream(settings: Settings, partition_key: str, offset: int) -> tuple[bytes, str]:
    """Return the bytes and file name of the clip at an offset of a range.

    Raises
    ------
    GenresError
        If Kafka does not have it any more.
    """
    one = PartitionKey.parse(partition_key).between(offset, offset + 1)
    for clip in KafkaClips.of(settings).clips([asdict(one)]):
        return clip.data, str(clip.about["file_name"])
    raise GenresError(f"Kafka has no clip at offset {offset} of {one.topic}, partition {one.kafka_partition}, any more")
