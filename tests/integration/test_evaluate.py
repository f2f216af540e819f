"""``genres evaluate`` on the real engine, and the candidates' pipelines where nobody knows this project."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import multivariate_normal

from genres.settings import PROJECT_DIR, Settings
from local_stack.java import java_home
from local_stack.stack import status
from spark.distance import scales_of

GENRES = ("blues", "metal", "rock")
COLUMNS = ("tempo", "mfcc1_mean", "mfcc1_var", "same_var", "odd")

FIT = """
import json, sys
import pandas as pd
from genres.settings import Settings
from spark.classifiers import CANDIDATES, fit_pipeline, index_genres
from spark.evaluation import collect_answers
from spark.session import open_session, session_config

table, folder = sys.argv[1:]
rows = pd.read_csv(table).rename(columns={"label": "genre"})
columns = [column for column in rows if column not in ("filename", "genre")]
spark = open_session(session_config(Settings(), app_name="test"))
indexed, genres = index_genres(spark.createDataFrame(rows).localCheckpoint())
for candidate in CANDIDATES:
    if candidate.name.endswith(("LogisticRegression", "DiscriminantAnalysis")):
        model = fit_pipeline(candidate, indexed, columns=columns, genres=genres)
        model.write().overwrite().save(f"file://{folder}/{candidate.name}")
        names, answers, _ = collect_answers(
            model.transform(indexed), gives_probability=True, n_genres=len(genres), keep="filename"
        )
        said = dict(zip(names, answers.probabilities.tolist(), strict=True))
        open(f"{folder}/{candidate.name}.json", "w").write(json.dumps(said))
        del model
spark.stop()
"""

CLASSIC_SESSION = """
import json, sys
from pathlib import Path
from pyspark.ml import PipelineModel
from pyspark.ml.functions import vector_to_array
from pyspark.sql import SparkSession

table, folder = sys.argv[1:]
spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
assert spark.sparkContext is not None, "not a classic session"
rows = spark.read.csv(table, header=True, inferSchema=True)
for path in Path(folder).glob("*.json"):
    model = PipelineModel.load(f"file://{folder}/{path.stem}")
    scored = model.transform(rows).select("filename", vector_to_array("probability").alias("p")).collect()
    path.with_suffix(".classic").write_text(json.dumps({row["filename"]: row["p"] for row in scored}))
spark.stop()
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Twenty-five tracks of each genre, that are easy to tell apart, with a constant column and one with gaps."""
    random = np.random.default_rng(3)
    rows = []
    for place, genre in enumerate(GENRES):
        for number in range(25):
            values = random.normal(size=4) + 3 * np.eye(4)[place]
            odd = np.nan if number % 10 == 0 else values[3] * 1e9
            rows.append([f"{genre}_{number}.wav", values[0], values[1], np.exp(4 * values[2]), 0.0, odd, genre])
    path = tmp_path / "table.csv"
    pd.DataFrame(rows, columns=["filename", *COLUMNS, "label"]).to_csv(path, index=False)
    return path


def test_evaluate_prints_json_and_nothing_else(run_genres: Callable[..., Any], table: Path, tmp_path: Path) -> None:
    names = pd.read_csv(table)["filename"].tolist()
    for part, chosen in (("train", names[::2]), ("valid", []), ("test", names[1::2])):
        (tmp_path / f"{part}_filtered.txt").write_text("\n".join(chosen))
    done = run_genres("evaluate", "--features", str(table), "--split-dir", str(tmp_path), "--json")
    assert done.returncode == 0, done.stderr
    rows = {row["model"]: row for row in json.loads(done.stdout)}
    assert list(rows)[-2:] == ["majority", "nearest centroid"]
    assert [row["chosen"] for row in rows.values()].count(True) == 1
    best = rows["LogisticRegression"]
    assert best["test_n"] == len(names[1::2])
    assert best["valid_accuracy"] is None
    assert best["test_accuracy"] > 0.8 > 0.5 > rows["majority"]["test_accuracy"]
    low, high = best["test_accuracy_ci"]
    assert low <= best["test_accuracy"] <= high
    assert {"cv_accuracy", "test_macro_f1", "test_top3_accuracy", "test_ece"} <= set(best)
    for said in ("the valid part has no row", "9 values missing, in odd", "are the same in all rows: same_var"):
        assert said in done.stderr
    assert "leak" not in done.stderr


def test_only_the_test_figures_depend_on_the_test_part(
    run_genres: Callable[..., Any], table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENRES_CLASSIFIERS", "LogisticRegression,LinearDiscriminantAnalysis")
    rows = pd.read_csv(table)
    judged = np.arange(len(rows)) % 5 == 0
    for part, chosen in (("train", ~judged), ("valid", ~judged & judged), ("test", judged)):
        (tmp_path / f"{part}_filtered.txt").write_text("\r\n".join(rows.loc[chosen, "filename"].str.upper()))
    (tmp_path / "other.csv").write_text(
        # Each test row has the features of another one.
        rows.assign(**{name: rows[name].where(~judged, rows[name].shift(25, fill_value=0)) for name in COLUMNS})
        .assign(filename="audio/" + rows["filename"])
        .to_csv(index=False, sep=";", decimal=",")
    )
    found = []
    for path in (table, tmp_path / "other.csv"):
        done = run_genres("evaluate", "--features", str(path), "--split-dir", str(tmp_path), "--json")
        assert done.returncode == 0, done.stderr
        # The last digits of sums depend on the order in which they are added.
        rounded = json.loads(done.stdout, parse_float=lambda text: round(float(text), 9))
        found.append({row["model"]: row for row in rounded})
    for model, row in found[0].items():
        other = found[1][model]
        assert {name: row[name] for name in row if not name.startswith("test_")} == {
            name: other[name] for name in other if not name.startswith("test_")
        }
    assert found[0]["LogisticRegression"]["test_accuracy"] > found[1]["LogisticRegression"]["test_accuracy"] + 0.3


def test_evaluate_shows_a_table_of_several_random_splits(run_genres: Callable[..., Any], table: Path) -> None:
    done = run_genres("evaluate", "--features", str(table), "--random-split", "0", "1")
    assert done.returncode == 0, done.stderr
    for said in ("LogisticRegression", "nearest centroid", "n=30", "95 % interval", "chosen by cross-validated"):
        assert said in done.stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--split-dir", "none"], "there is no folder"),
        (["--split-dir", ".", "--random-split", "1"], "two ways to split"),
        (["7"], "seeds come after --random-split"),
        (["--groups", "none.csv"], "there is no file"),
    ],
)
def test_mistakes_are_one_line(options: list[str], said: str, run_genres: Callable[..., Any], table: Path) -> None:
    done = run_genres("evaluate", "--features", str(table), *options)
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.long
def test_on_a_fresh_clone_it_starts_the_engine_and_nothing_else(
    state_dir: Path, free_port_base: Callable[[], int], table: Path
) -> None:
    settings = Settings(state_dir=state_dir, port_base=free_port_base())
    variables = {
        "GENRES_STATE_DIR": str(state_dir),
        "GENRES_PORT_BASE": str(settings.port_base),
        "GENRES_CLASSIFIERS": "LogisticRegression",
        "GENRES_START_TIMEOUT_S": "300",
    }
    command = [sys.executable, "-m", "genres_cli", "evaluate", "--features", str(table), "--json"]
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["chosen"]
    states = {service.service: service.state for service in status(settings)}
    assert {states.pop("spark-connect"), states.pop("spark-ui")} == {"running"}
    assert set(states.values()) == {"stopped"}


def by_normal_distributions(table: pd.DataFrame, *, shrinkage: float) -> pd.DataFrame:
    """Probabilities of the genres, by the textbook: normal distributions around the means, all of one shape."""
    values = table[list(COLUMNS)].to_numpy(float)
    standardised = np.zeros(values.shape)
    for place, scale in enumerate(scales_of(values, COLUMNS)):
        if scale.deviation:
            one = values[:, place] if scale.offset is None else np.log(values[:, place] + scale.offset)
            standardised[:, place] = np.clip(np.nan_to_num((one - scale.mean) / scale.deviation), -3, 3)
    of_genre = {genre: standardised[table["label"] == genre] for genre in sorted(GENRES)}
    variances, axes = np.linalg.eigh(np.cov(np.vstack([rows - rows.mean(axis=0) for rows in of_genre.values()]).T))
    variances[variances < 1e-9] = 1  # of what does not vary within genres
    shrunk = (1 - shrinkage) * variances + shrinkage * variances.mean()
    shrunk *= 1 + len(COLUMNS) / (len(table) - len(GENRES) + 1)
    shape = axes @ np.diag(shrunk) @ axes.T
    likelihoods = {
        genre: multivariate_normal(rows.mean(axis=0), shape).pdf(standardised) * len(rows)
        for genre, rows in of_genre.items()
    }
    found = pd.DataFrame(likelihoods, index=table["filename"])
    return found.div(found.sum(axis=1), axis=0)


@pytest.mark.long
def test_every_pipeline_loads_where_this_project_is_not(stack: Settings, table: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    fitted = [sys.executable, "-c", FIT, str(table), str(models)]
    done = subprocess.run(fitted, cwd=PROJECT_DIR, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("GENRES_", "SPARK_"))}
    environment |= {"JAVA_HOME": str(java_home()), "SPARK_LOCAL_IP": "127.0.0.1", "PYTHONPATH": ""}
    done = subprocess.run(
        [sys.executable, "-I", "-c", CLASSIC_SESSION, str(table), str(models)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers = sorted(models.glob("*.json"))
    assert [path.stem for path in answers] == [
        "FourierLogisticRegression",
        "LinearDiscriminantAnalysis",
        "LogisticRegression",
        "WhitenedLogisticRegression",
    ]
    analysis = json.loads((models / "LinearDiscriminantAnalysis.json").read_text())
    expected = by_normal_distributions(pd.read_csv(table), shrinkage=0.1)
    np.testing.assert_allclose([analysis[name] for name in expected.index], expected, atol=1e-6)
    for path in answers:
        ours, theirs = (json.loads(file.read_text()) for file in (path, path.with_suffix(".classic")))
        assert ours.keys() == theirs.keys() and len(ours) == 75
        for name, probabilities in ours.items():
            np.testing.assert_allclose(probabilities, theirs[name], atol=1e-9)
        genres = sorted(GENRES)
        right = [genres[int(np.argmax(said))] == name.split("_")[0] for name, said in ours.items()]
        assert np.mean(right) > 0.8
