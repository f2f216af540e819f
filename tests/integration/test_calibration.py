"""Calibrated models on the real engine: what Spark's stages answer is what NumPy computes, and older models go on."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from genres.settings import PROJECT_DIR, Settings

GENRES = ("blues", "metal", "rock")
FIT = """
import json, sys
import numpy as np, pandas as pd
from pyspark.ml import PipelineModel
from genres.settings import Settings
from spark.calibration import calibrating, fit_temperature, tempered
from spark.classifiers import choose, fit_pipeline, index_genres
from spark.distance import LearntClips, held_out_distances
from spark.evaluation import collect_answers
from spark.out_of_fold import out_of_fold_answers
from spark.scoring import answers_of
from spark.session import open_session, session_config

table, folder = sys.argv[1:]
rows = pd.read_csv(table)
columns = [column for column in rows if column not in ("track_id", "genre")]
folds = {track: number % 3 for number, track in enumerate(rows["track_id"])}
spark = open_session(session_config(Settings(), app_name="test"))
indexed, genres = index_genres(spark.createDataFrame(rows).coalesce(1).localCheckpoint())
values = rows[columns].to_numpy(float)
learnt = LearntClips.of(values, columns)
learnt = learnt.with_threshold(held_out_distances(values, columns, np.array(list(folds.values()))), np.array([]))
found = {"distances": learnt.distances(values).tolist()}
for candidate in choose(["LogisticRegression", "RandomForest", "OneVsRestLinearSVC"]):
    out = out_of_fold_answers(
        indexed, columns=columns, genres=genres, candidate=candidate, key="track_id", folds=folds
    )
    temperature = fit_temperature(out.scores, out.answers.true)
    model = fit_pipeline(candidate, indexed, columns=columns, genres=genres)
    *classifying, naming = model.stages
    stages = [*classifying, calibrating(temperature, genres=len(genres)), *learnt.stages(indexed), naming]
    path = f"file://{folder}/{candidate.name}"
    PipelineModel(stages).write().overwrite().save(path)
    loaded = PipelineModel.load(path)
    plain, calibrated = (answers_of(one, indexed).toPandas().sort_values("track_id") for one in (model, loaded))
    raw = collect_answers(
        model.transform(indexed), gives_probability=candidate.gives_probability, n_genres=len(genres), keep="track_id"
    )
    found[candidate.name] = {
        "keys": list(out.keys),
        "true": out.answers.true.tolist(),
        "log_loss": [
            out.answers.log_loss(), type(out.answers)(out.answers.true, tempered(out.scores, temperature)).log_loss()
        ],
        "scores": raw.scores.tolist(),
        "temperature": temperature,
        "plain": [list(map(float, one)) for one in plain["probabilities"]],
        "plain_distances": plain["distance"].isna().all().item(),
        "calibrated": [list(map(float, one)) for one in calibrated["probabilities"]],
        "distances": calibrated["distance"].tolist(),
        "named": [plain["predicted_genre"].tolist(), calibrated["predicted_genre"].tolist()],
    }
    del model, loaded, classifying, naming, stages
open(f"{folder}/found.json", "w").write(json.dumps(found))
spark.stop()
"""


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty tracks of each genre, which are not easy to tell apart, with a gap and a constant column."""
    random = np.random.default_rng(3)
    rows = []
    for place, genre in enumerate(GENRES):
        for number in range(30):
            values = random.normal(size=4) + 1.2 * np.eye(4)[place]
            odd = np.nan if number == 7 else values[3] * 1e9
            rows.append([f"{genre}_{number:02}", genre, values[0], values[1], np.exp(4 * values[2]), 0.0, odd])
    columns = ["track_id", "genre", "tempo", "mfcc1_mean", "mfcc1_var", "same_var", "odd"]
    path = tmp_path_factory.mktemp("calibration") / "table.csv"
    pd.DataFrame(rows, columns=columns).to_csv(path, index=False)
    return path


@pytest.mark.long
def test_spark_answers_as_numpy_does(stack: Settings, table: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FIT, str(table), str(table.parent)],
        cwd=PROJECT_DIR,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((table.parent / "found.json").read_text())
    tracks = pd.read_csv(table)
    distances = found.pop("distances")
    assert max(distances) > 0.5
    for name, one in found.items():
        assert one["keys"] == list(tracks["track_id"])
        assert one["true"] == [GENRES.index(genre) for genre in tracks["genre"]]
        scores, temperature = np.array(one["scores"]), one["temperature"]
        powers = np.exp((scores - scores.max(axis=1, keepdims=True)) / temperature)
        np.testing.assert_allclose(one["calibrated"], powers / powers.sum(axis=1, keepdims=True), rtol=1e-6, atol=1e-12)
        # The same order of all genres, and the same name of the first one.
        assert (np.argsort(one["plain"], axis=1) == np.argsort(one["calibrated"], axis=1)).all(), name
        assert one["named"][0] == one["named"][1]
        np.testing.assert_allclose(one["distances"], distances, rtol=1e-6)
        # A model that was saved before there was calibration answers as it did.
        assert one["plain_distances"]
        np.testing.assert_allclose(np.sum(one["plain"], axis=1), 1)
        before, after = one["log_loss"]
        assert after <= before + 1e-3, f"{name}: calibrated out of fold"
