"""What has to hold of a batch, whatever was done to the cluster meanwhile; the stream's oracle is the fault tests'."""

from pathlib import Path

import numpy as np

from genres.audio.clip_features import clip_features
from genres.audio.gtzan57 import GTZAN57
from genres.store.batch_tables import BatchTables


def wrong_features(tables: BatchTables, music: Path) -> list[str]:
    """Return which tracks' features are missing, doubled, or not those that their files give here."""
    wrong = []
    features = tables.features(GTZAN57.feature_version)
    files = {f"{path.parent.name}.{path.stem}": path for path in music.rglob("*.wav")}
    for track, path in files.items():
        rows = features[features["track_id"] == track]
        if len(rows) != 1:
            wrong.append(f"{track} has {len(rows)} rows")
            continue
        here = clip_features(path.read_bytes(), file_suffix=".wav", feature_set=GTZAN57, max_clip_s=60).values
        if not np.allclose(rows[list(here)].to_numpy(float)[0], list(here.values()), rtol=1e-6):
            wrong.append(f"{track} has other values")
    return wrong
