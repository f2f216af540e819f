"""The batch half on the real stack: from a folder of clips to rows in the database, once and again."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import numpy as np
import pandas as pd
import pytest
import requests
import soundfile

from genre_assets.champion_model import publish
from genre_assets.hyperparameter_search import FOUND
from genre_assets.run_page import GENRE_TABLE
from genre_assets.training_tracks import dataset_fingerprint
from genres.audio.gtzan57 import GTZAN57
from genres.datasets.synthetic import SAMPLE_RATE, synthesise
from genres.errors import GenresError
from genres.retrying import retried
from genres.settings import Settings
from genres.store import champions, ledger, predictions, quarantine
from genres.store.batch_tables import BatchTables
from genres.store.database import Database
from genres.store.lake import Lake
from genres.store.model_directory import directory_digest
from genres.store.model_registry import ModelRegistry
from genres.store.stream_ledger import results
from genres_cli.stream_demo import kept_running
from genres_dagster.launch import open_instance
from local_stack.java import java_home
from spark.classifiers import CANDIDATES
from tests.accessibility import grave_violations
from tests.sounds import SR, coloured_noise, speech, tone

if TYPE_CHECKING:
    from playwright.sync_api import Browser

GENRES = ("blues", "metal", "disco")
CLIPS = 8
TRAINED = [candidate.name for candidate in CANDIDATES if candidate.name not in ("DecisionTree", "OneVsRestGBT")]
"""More than by default, to see each saved, logged and loaded once; other tests train the tree."""
Genres = Callable[..., subprocess.CompletedProcess[str]]
CLASSIC_SESSION = """
import json, pathlib, sys
import mlflow
from pyspark.sql import SparkSession

uri, features, answers = sys.argv[1:]
spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
assert spark.sparkContext is not None, "not a classic session"
model = mlflow.spark.load_model(uri, dfs_tmpdir=str(pathlib.Path("dfs").absolute()))
rows = model.transform(spark.read.csv(features, header=True, inferSchema=True)).collect()
pathlib.Path(answers).write_text(json.dumps({row["track_id"]: row["predicted_genre"] for row in rows}))
spark.stop()
"""


@pytest.fixture(scope="module")
def genres(run_genres: Genres) -> Genres:
    return run_genres


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, write_clips: Callable[..., None]) -> Path:
    """Clips of three genres, with a text file named .wav and a copy of a clip among them."""
    folder = tmp_path_factory.mktemp("own music")
    write_clips(folder, GENRES, CLIPS)
    (folder / "blues" / "notes.wav").write_text("these are not samples")
    shutil.copy(folder / "metal" / "metal_0.wav", folder / "metal" / "copy.wav")
    return folder


@pytest.fixture(scope="module")
def demo(genres: Genres, folder: Path) -> subprocess.CompletedProcess[str]:
    """The demo on that folder, run once for the tests of this module."""
    return genres("demo", audio=folder, GENRES_CLASSIFIERS=",".join(TRAINED))


@pytest.fixture(scope="module")
def tables(stack: Settings, demo: subprocess.CompletedProcess[str]) -> BatchTables:
    lake = Lake.of(stack)
    return BatchTables(lake, Database(stack.database), "own_music0")


@pytest.fixture(scope="module", autouse=True)
def dataset_id_is_known(demo: subprocess.CompletedProcess[str]) -> Iterator[None]:
    assert demo.returncode == 0, demo.stdout + demo.stderr
    yield


def test_demo_says_what_it_found(demo: subprocess.CompletedProcess[str]) -> None:
    for said in (
        "batch_predictions",
        "FourierLogisticRegression",
        "MultilayerPerceptron",
        "champion:",
        "notes.wav",
        "Spark UI",
        "at rest",
        "majority",
        "from file to row",
    ):
        assert said in demo.stdout
    assert "synthetic" not in demo.stdout


def test_a_browser_hears_and_sees_what_the_page_has(
    stack: Settings, folder: Path, tables: BatchTables, browser: "Browser", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENRES_DATASET", tables.dataset)
    command = [sys.executable, "-m", "genres_cli", "page"]
    with kept_running(command, stack.state_dir / "logs" / "page.log"):
        address = f"http://127.0.0.1:{stack.ports.page}"
        retried(lambda: requests.get(address, timeout=30), on=requests.RequestException, patience_s=120)
        clip = folder / "disco" / "disco_3.wav"
        with clip.open("rb") as file:
            answered = requests.post(
                f"{address}/answer", files={"file": file}, params={"dataset": "own_music0"}, timeout=300
            )
        assert answered.status_code == 200, answered.text
        answer = answered.json()
        (row,) = [
            row
            for row in predictions.batch_predictions(tables.database, "own_music0")
            if row["track_id"] == "disco.disco_3"
        ]
        assert answer["predicted_genre"] == row["predicted_genre"]
        assert answer["probabilities"] == pytest.approx(row["probabilities"], abs=1e-6)

        page = browser.new_page(viewport={"width": 390, "height": 844})
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("request", lambda request: complaints.append(request.url) if _leads_out(request.url) else None)
        page.set_default_timeout(60_000)
        page.goto(address)
        page.locator("input[type=file]").first.set_input_files(clip)
        said = page.get_by_label("Answer")
        page.wait_for_function("box => box.value.includes('genres-own_music0 version')", arg=said.element_handle())
        assert said.input_value().startswith(answer["predicted_genre"])
        assert page.evaluate("document.documentElement.scrollWidth") <= 390  # nothing sticks out of a phone
        page.get_by_role("tab", name="Library").click()
        page.get_by_text("blues.blues_0").locator("visible=true").first.click()
        curve = page.get_by_role("slider", name="Position in the clip").filter(visible=True)
        curve.wait_for()
        assert float(curve.get_attribute("aria-valuemax") or 0) == 3.0  # a clip of three seconds, from HDFS
        assert str(curve.get_attribute("aria-valuetext")).split()[2].strip(",") in GENRES
        source = page.locator("#track audio").get_attribute("src")
        part = requests.get(str(source), headers={"Range": "bytes=4-7"}, timeout=30)
        assert (part.status_code, len(part.content)) == (206, 4)  # who seeks need not fetch what lies before
        for view in ("Try it", "Stream", "Library", "Models"):
            page.get_by_role("tab", name=view).click()
            if view != "Try it":
                page.get_by_role("gridcell").filter(visible=True).first.wait_for()
            assert grave_violations(page) == [], view
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, view
        assert complaints == []


def _leads_out(url: str) -> bool:
    return not url.startswith(("data:", "blob:", "http://127.0.0.1:"))


def test_the_notebook_reads_what_the_demo_stored(
    tables: BatchTables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("GENRES_DATASET", tables.dataset)

    notebook = nbformat.read("docs/notebooks/read_the_lake.ipynb", as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells), "stored with what somebody's lake said"
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    said = "".join(str(cell.get("outputs", "")) for cell in notebook.cells)
    for part in ("own_music0", "quarantined", "predicted_genre", "test tracks", "image/png", "latency_s"):
        assert part in said


def test_manifest_accounts_for_every_file(tables: BatchTables, folder: Path) -> None:
    manifest = tables.manifest().set_index("file_name")
    assert len(manifest) == len(list(folder.rglob("*.wav"))) == len(GENRES) * CLIPS + 2
    refused = manifest[manifest["status"] == "quarantined"]
    assert list(refused.index) == ["notes.wav"]
    clip = manifest.loc["disco_3.wav"]
    assert tables.lake.files.cat_file(clip["path"]) == (folder / "disco" / "disco_3.wav").read_bytes()
    assert (clip["sample_rate"], clip["channels"], clip["duration_s"]) == (22_050, 1, 3.0)
    assert [row.file_name for row in quarantine.refused(tables.database, tables.dataset)] == ["notes.wav"]


def test_features_are_complete_and_the_kernels_own(tables: BatchTables, folder: Path) -> None:
    from genres.audio.clip_features import clip_features

    features = tables.features(GTZAN57.feature_version).set_index("track_id")
    assert len(features) == len(GENRES) * CLIPS + 1
    row = features.loc["blues.blues_2"]
    data = (folder / "blues" / "blues_2.wav").read_bytes()
    alone = clip_features(data, file_suffix=".wav", feature_set=GTZAN57, max_clip_s=60)
    np.testing.assert_allclose(row[list(alone.values)].to_numpy(float), list(alone.values.values()), rtol=1e-6)
    assert row["length"] == alone.length == 3 * 22_050


def test_split_keeps_copies_on_one_side(tables: BatchTables) -> None:
    split = tables.split()
    used = split[split["part"] != "excluded"]
    assert used["sha256"].is_unique
    assert set(used.groupby("genre")["part"].nunique()) == {3}


def test_predictions_are_a_row_a_track(stack: Settings, tables: BatchTables, genres: Genres) -> None:
    printed = genres("predictions", "--json", "--dataset", tables.dataset)
    rows = [row for row in json.loads(printed.stdout) if row["table"] == "batch_predictions"]
    assert {row["track_id"] for row in rows} == set(tables.accepted()["track_id"])
    for row in rows:
        assert set(row["probabilities"]) == set(GENRES)
        assert sum(row["probabilities"].values()) == pytest.approx(1)
        assert row["probability"] == max(row["probabilities"].values()) == row["probabilities"][row["predicted_genre"]]
        assert row["is_synthetic"] is False


def test_dropped_clips_became_rows(tables: BatchTables) -> None:
    split = tables.split()
    test_part = set(split[split["part"] == "test"]["sha256"])
    rows = results.predictions(tables.database)
    assert test_part <= {row["sha256"] for row in rows if row["dataset"] == tables.dataset}
    assert "notes.wav" in {row["file_name"] for row in results.quarantine(tables.database)}
    batch = {row["track_id"]: row for row in predictions.batch_predictions(tables.database, tables.dataset)}
    names = dict(zip(split["sha256"], split["track_id"], strict=True))
    for row in rows:
        if row["sha256"] in test_part:  # the same model and the same feature code as in batch
            assert row["predicted_genre"] == batch[names[row["sha256"]]]["predicted_genre"]
            assert row["latency_s"] > 0


def test_mlflow_remembers_every_candidate(stack: Settings, tables: BatchTables) -> None:
    registry = ModelRegistry(stack.tracking_uri)
    parent = registry.latest_training(tables.dataset)
    children = registry.child_runs(parent)
    assert sorted(child.info.run_name for child in children) == sorted(TRAINED)
    for child in children:
        figures = table_of(registry, child)
        by_genre = {f"{part}_f1_{genre}" for part, genre in zip(figures["part"], figures["genre"], strict=True)}
        assert {f"{part}_f1_{genre}" for part in ("valid", "test") for genre in GENRES} <= by_genre
        assert len(child.data.metrics) < 20, "a list of runs has a column for each"
        assert child.data.tags["dagster_run_id"] == parent.data.tags["dagster_run_id"]
        confusion = registry.read_json(child, "confusion_test.json")
        assert confusion["genres"] == sorted(GENRES)
        rows = np.array(confusion["confusion"])
        assert rows.sum() == child.data.metrics["test_rows"]
        assert np.trace(rows) / rows.sum() == pytest.approx(child.data.metrics["test_accuracy"])


def table_of(registry: ModelRegistry, run: Any) -> pd.DataFrame:
    stored = registry.read_json(run, GENRE_TABLE)
    return pd.DataFrame(stored["data"], columns=stored["columns"])


def test_mlflow_opens_on_the_candidates_with_their_scores(
    stack: Settings, tables: BatchTables, browser: "Browser"
) -> None:
    registry = ModelRegistry(stack.tracking_uri)
    best = registry.child_runs(registry.latest_training(tables.dataset))[0]
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(60_000)
    page.goto(registry.page(tables.dataset))
    for heading in ("valid_macro_f1", "test_accuracy"):
        page.get_by_text(heading, exact=True).first.wait_for()
    page.get_by_text(best.info.run_name).first.wait_for()


def test_mlflow_opens_on_what_there_is_to_see(stack: Settings, tables: BatchTables) -> None:
    registry = ModelRegistry(stack.tracking_uri)
    name = registry.name_for(tables.dataset)
    assert registry.client.get_experiment_by_name(name).tags["mlflow.experimentKind"] == "custom_model_development"
    parent = registry.latest_training(tables.dataset)
    best = registry.child_runs(parent)[0]
    for figure in ("valid_macro_f1", "test_macro_f1", "test_accuracy"):
        assert parent.data.metrics[figure] == best.data.metrics[figure]
    assert parent.data.tags["best_classifier"] == best.info.run_name
    for run in (parent, best, registry.calibrated_run(parent)):
        (used,) = run.inputs.dataset_inputs
        split = tables.split()
        assert used.dataset.name == tables.dataset
        assert parent.data.tags["dataset_fingerprint"].startswith(used.dataset.digest)
        assert json.loads(used.dataset.profile)["num_rows"] == (split["part"] != "excluded").sum()
    assert tables.dataset in registry.client.get_registered_model(name).description
    champion = registry.champion(tables.dataset)
    card = registry.client.get_model_version(name, str(champion.version)).description
    assert f"# {name} version {champion.version}" in card and "Not to be used" in card
    (test,) = (line for line in card.splitlines() if line.startswith("| test |"))
    assert f"| {champion.test_tracks}, little | {champion.test_accuracy:.3f} (" in test


def test_champion_is_the_best_and_its_directory_is_whole(stack: Settings, tables: BatchTables, tmp_path: Path) -> None:
    registry = ModelRegistry(stack.tracking_uri)
    best = registry.child_runs(registry.latest_training(tables.dataset))[0]
    champion = registry.champion(tables.dataset)
    assert champion.valid_macro_f1 == max(best.data.metrics["valid_macro_f1"], champion.valid_macro_f1)
    tables.lake.files.get(champion.spark_model_path, str(tmp_path / "model"), recursive=True)
    assert directory_digest(tmp_path / "model") == champion.spark_model_digest


@pytest.mark.long
def test_somebodys_classic_session_loads_the_champion_from_mlflow(
    stack: Settings, tables: BatchTables, tmp_path: Path
) -> None:
    champion = ModelRegistry(stack.tracking_uri).champion(tables.dataset)
    tables.features(champion.feature_version).to_csv(tmp_path / "features.csv", index=False)
    # What another process of theirs would have: none of our settings, and no trace of a Connect session.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("GENRES_", "SPARK_"))}
    done = subprocess.run(
        [sys.executable, "-c", CLASSIC_SESSION, f"models:/{champion.name}@champion", "features.csv", "answers.json"],
        env={
            **environment,
            "JAVA_HOME": str(java_home()),
            "SPARK_LOCAL_IP": "127.0.0.1",
            "MLFLOW_TRACKING_URI": stack.tracking_uri,
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers = json.loads((tmp_path / "answers.json").read_text())
    stored = predictions.batch_predictions(tables.database, tables.dataset, model_version=champion.version)
    assert answers == {row["track_id"]: row["predicted_genre"] for row in stored}


def test_the_champion_is_calibrated_and_says_how(stack: Settings, tables: BatchTables) -> None:
    registry = ModelRegistry(stack.tracking_uri)
    parent = registry.latest_training(tables.dataset)
    run = registry.calibrated_run(parent)
    assert run.info.run_id not in {child.info.run_id for child in registry.child_runs(parent)}
    best = registry.child_runs(parent)[0]
    metrics, train = run.data.metrics, int((tables.split()["part"] == "train").sum())
    assert metrics["valid_macro_f1"] == best.data.metrics["valid_macro_f1"]
    assert 0 < metrics["calibration_rows"] <= train
    shown = {artifact.path for artifact in registry.client.list_artifacts(run.info.run_id)}
    assert {"reliability.png", "coverage.png", "distances.png"} <= shown
    champion = registry.champion(tables.dataset)
    said = f"temperature {metrics['temperature']:.3g} from {metrics['calibration_rows']:.0f} out-of-fold answers"
    assert (champion.is_calibrated, champion.calibration) == (True, said)
    assert champion.certain_from == pytest.approx(metrics.get("certain_from", float("inf")))
    rows = predictions.batch_predictions(tables.database, tables.dataset, model_version=champion.version)
    for row in rows:
        assert list(row["probabilities"]) == sorted(GENRES)
        assert row["is_uncertain"] is (row["probability"] < champion.certain_from)
        assert row["is_unlike"] is (row["distance"] > 1)
    of_training = [row["is_unlike"] for row in rows if row["part"] == "train"]
    assert of_training and not any(of_training), "of few tracks, no one is unlike the others"


def test_what_is_no_music_is_marked(tables: BatchTables, genres: Genres, tmp_path: Path) -> None:
    sounds = {"noise": coloured_noise(3, 0), "silence": np.zeros(66_150), "tone": tone(440, 3), "speech": speech(3)}
    for name, samples in sounds.items():
        soundfile.write(tmp_path / f"{name}.wav", samples, SR)
    found = json.loads(genres("predict", str(tmp_path), "--dataset", tables.dataset, "--json").stdout)
    assert {Path(row["file_name"]).stem: row["is_unlike"] for row in found} == dict.fromkeys(sounds, True)
    shown = genres("predict", str(tmp_path / "tone.wav"), "--dataset", tables.dataset).stdout
    assert "unlike anything learnt" in shown


def test_a_champion_that_somebody_registered_by_hand_is_one_clear_error(
    stack: Settings, tables: BatchTables, genres: Genres
) -> None:
    registry = ModelRegistry(stack.tracking_uri)
    best = registry.child_runs(registry.latest_training(tables.dataset))[0]
    version = registry.register("by_hand", run=best)
    registry.client.set_model_version_tag("genres-by_hand", str(version), "is_calibrated", "perhaps")
    registry.set_alias("by_hand", "champion", version)
    said = (
        rf"genres-by_hand version {version} lacks the tags spark_model_path, .*valid_macro_f1 and has tags that "
        r"cannot be read: is_calibrated='perhaps': .* materialize champion_model"
    )
    with pytest.raises(GenresError, match=said):
        registry.champion("by_hand")


def test_predict_and_features_of_local_files(tables: BatchTables, genres: Genres, folder: Path, tmp_path: Path) -> None:
    answer = genres("predict", str(folder / "metal"), "--dataset", tables.dataset, "--json")
    stored = {row["track_id"]: row for row in predictions.batch_predictions(tables.database, tables.dataset)}
    rows = json.loads(answer.stdout)
    assert len(rows) == CLIPS + 1
    for row in rows:
        known = stored[f"metal.{Path(row['file_name']).stem}"]
        assert row["predicted_genre"] == known["predicted_genre"]
        assert row["probability"] == pytest.approx(known["probability"], rel=1e-4)
    written = genres("features", str(folder), "-o", str(tmp_path / "f.csv"))
    table = pd.read_csv(tmp_path / "f.csv")
    assert list(table.columns) == ["filename", "length", *GTZAN57.columns, "label"]
    assert len(table) == len(GENRES) * CLIPS + 1
    assert "notes.wav" in written.stderr


def test_a_refused_file_is_said_and_the_others_have_their_answers(
    tables: BatchTables, genres: Genres, folder: Path
) -> None:
    good, bad = folder / "metal" / "metal_0.wav", folder / "blues" / "notes.wav"
    done = genres("predict", str(good), str(bad), "--dataset", tables.dataset)
    assert done.returncode == 1
    (row,) = [line for line in done.stdout.splitlines() if line.startswith("metal_0.wav")]
    assert row.split()[1] in GENRES
    refused, last = done.stderr.splitlines()[-2:]
    assert refused.startswith("refused notes.wav: not a WAV file: it begins with ")
    assert last == "genres: 1 of 2 files was refused"
    assert "metal_0.wav" not in done.stderr and "notes.wav" not in done.stdout


def test_running_again_changes_nothing(stack: Settings, tables: BatchTables, genres: Genres, folder: Path) -> None:
    def state() -> Any:
        rows = predictions.batch_predictions(tables.database, tables.dataset)
        paths = [
            commit.path
            for name in ("raw_audio", "audio_features", "track_split")
            for commit in ledger.published(tables.database, tables.dataset, name)
        ]
        sizes = tables.lake.sizes(tables.lake.path(tables.dataset, "raw_audio"))
        return rows, paths, sizes, ModelRegistry(stack.tracking_uri).champion(tables.dataset)

    before = state()
    again = genres("demo", "--batch-only", audio=folder)
    assert again.returncode == 0, again.stdout + again.stderr
    assert state() == before
    challenger = ModelRegistry(stack.tracking_uri).find_aliased(tables.dataset, "challenger")
    assert challenger is not None
    assert challenger.why.endswith(f"does not beat the present champion's {before[3].valid_macro_f1:.3f}")


def test_the_champion_is_changed_by_hand_and_back(stack: Settings, tables: BatchTables, genres: Genres) -> None:
    listed = json.loads(genres("models", "--dataset", tables.dataset, "--json").stdout)
    by_alias = {row["alias"]: row["version"] for row in listed if row["alias"]}
    assert by_alias.keys() == {"champion", "challenger"}
    assert all(row["valid_tracks"] and row["test_tracks"] for row in listed)
    champion, challenger = by_alias["champion"], by_alias["challenger"]
    registry = ModelRegistry(stack.tracking_uri)
    told = genres("models", "promote", str(challenger), "--dataset", tables.dataset, "--why", "by ear")
    assert told.returncode == 0, told.stdout + told.stderr
    assert registry.champion(tables.dataset).version == challenger
    with open_instance(stack) as instance:
        key = dg.AssetKey("champion_model")
        (record,) = instance.fetch_materializations(
            dg.AssetRecordsFilter(key, asset_partitions=[tables.dataset]), limit=1
        ).records
        assert record.asset_materialization is not None
        assert record.asset_materialization.tags["dagster/data_version"] == f"genres-{tables.dataset}-{challenger}"
    back = genres("models", "rollback", "--dataset", tables.dataset)
    assert back.returncode == 0, back.stdout + back.stderr
    assert registry.champion(tables.dataset).version == champion
    *_, promoted, rolled_back = champions.changes(tables.database, tables.dataset)
    assert (promoted.action, promoted.model_version, promoted.why) == ("promote", challenger, "by ear")
    assert (rolled_back.action, rolled_back.model_version) == ("rollback", champion)
    registry.set_alias(tables.dataset, "challenger", challenger)


def test_replaced_audio_is_predicted_again(
    stack: Settings, tables: BatchTables, start_materializing: Callable[..., Any], folder: Path
) -> None:
    (before,) = rows_of(tables, "disco.disco_3")
    # Of another seed, as no clip of the folder is.
    soundfile.write(folder / "disco" / "disco_3.wav", synthesise("disco", 3, clip_s=3.0, seed=8), SAMPLE_RATE)
    changed = "raw_audio,audio_features,track_split,batch_predictions"
    assert start_materializing(changed, tables.dataset).wait(300) == 0
    now = hashlib.sha256((folder / "disco" / "disco_3.wav").read_bytes()).hexdigest()
    assert {row["sha256"]: row["run_id"] for row in rows_of(tables, "disco.disco_3")}.keys() == {before["sha256"], now}
    assert len(rows_of(tables, "disco.disco_4")) == 1
    with open_instance(stack) as instance:
        key = dg.AssetCheckKey(dg.AssetKey("batch_predictions"), "stale")
        (record,) = instance.event_log_storage.get_asset_check_execution_history(key, limit=1)
        evaluation = record.event.dagster_event.asset_check_evaluation_data  # type: ignore[union-attr]
    assert not evaluation.passed and evaluation.severity == dg.AssetCheckSeverity.WARN
    assert evaluation.metadata["tracks"].value == ["disco.disco_3"]


def rows_of(tables: BatchTables, track_id: str) -> list[dict[str, Any]]:
    stored = predictions.batch_predictions(tables.database, tables.dataset)
    return [row for row in stored if row["track_id"] == track_id]


def test_engines_show_what_they_did(stack: Settings, tables: BatchTables) -> None:
    connect = requests.get(f"http://127.0.0.1:{stack.ports.spark_ui}/api/v1/applications", timeout=30).json()
    jobs = requests.get(
        f"http://127.0.0.1:{stack.ports.spark_ui}/api/v1/applications/{connect[0]['id']}/jobs", timeout=30
    ).json()
    assert any(job["status"] == "SUCCEEDED" for job in jobs)
    # The server names a tag by the session's as well.
    names = [{tag.split("_Tag_")[1] for tag in job["jobTags"] if "_Tag_" in tag} for job in jobs]
    told = {name for found in names for name in found if not name.startswith("limited-")}
    # The server remembers the newest thousand jobs: fewer of the training the more came after it.
    assert any(name.endswith(f" on gtzan57 of {tables.dataset}") for name in told), "the training is there, too"
    assert f"batch_predictions of {tables.dataset}" in told
    for work in ("features", "scores"):
        assert any(re.fullmatch(rf"p\d+ offsets \d+-\d+ \S+: {work}", name) for name in told)
    trained = []
    for job, found in zip(jobs, names, strict=True):
        # Candidates that are trained at the same time do not take each other's names; the list shows a name's begin.
        named = [name for name in found if " on gtzan57 of " in name]
        assert len(named) < 2
        if named and "type_url" in job["description"]:
            trained.append(job)
            assert f'"/{named[0][:3]}' in job["description"]
    assert trained


@pytest.mark.long
def test_a_dataset_that_grew_is_trained_on_with_the_launchpads_hyperparameters(
    stack: Settings,
    tables: BatchTables,
    genres: Genres,
    folder: Path,
    start_materializing: Callable[..., Any],
) -> None:
    for genre in GENRES:
        samples = synthesise(genre, CLIPS, clip_s=3.0, seed=7)
        soundfile.write(folder / genre / f"{genre}_{CLIPS}.wav", samples, SAMPLE_RATE, subtype="PCM_16")
    loaded = genres("load", str(folder), "--dataset", tables.dataset)
    assert loaded.returncode == 0, loaded.stdout + loaded.stderr
    assert start_materializing("audio_features,track_split", tables.dataset).wait(300) == 0
    assert len(tables.feature_paths(GTZAN57.feature_version)) > 1, "the clip that came later is a part of its own"

    config = {"classifiers": ["LogisticRegression"], "hyperparameters": {"LogisticRegression": {"maxIter": 3}}}
    run_config = json.dumps({"ops": {"genre_classifiers": {"config": config}}})
    assert start_materializing("genre_classifiers", tables.dataset, "--config-json", run_config).wait(300) == 0
    registry = ModelRegistry(stack.tracking_uri)
    parent = registry.latest_training(tables.dataset)
    (child,) = registry.child_runs(parent)
    params = child.data.params
    assert (child.info.run_name, params["maxIter"], params["regParam"]) == ("LogisticRegression", "3", "0.02")
    split = tables.split()
    assert len(split) == len(GENRES) * (CLIPS + 1) + 1
    rows = {part: parent.data.metrics[f"{part}_rows"] for part in ("train", "valid", "test")}
    assert rows == split[split["part"] != "excluded"]["part"].value_counts().to_dict()


def test_a_candidate_that_is_no_longer_on_hdfs_is_not_published(stack: Settings, tables: BatchTables) -> None:
    registry = ModelRegistry(stack.tracking_uri)
    parent = registry.latest_training(tables.dataset)
    best = registry.child_runs(parent)[0]
    tables.lake.files.rm(tables.candidate_path(parent.info.run_id, best.info.run_id), recursive=True)
    with pytest.raises(GenresError, match=f"{best.info.run_name} .*materialize genre_classifiers again"):
        publish(best, 99, tables)
    assert not tables.lake.files.exists(tables.lake.path(tables.dataset, "models", "v99"))


@pytest.mark.long
def test_hyperparameters_are_searched_for_once_and_taken_by_the_next_training(
    stack: Settings, tables: BatchTables, start_materializing: Callable[..., Any]
) -> None:
    registry = ModelRegistry(stack.tracking_uri)

    def search() -> Any:
        config = json.dumps({"ops": {"hyperparameter_search": {"config": {"classifiers": ["LogisticRegression"]}}}})
        assert start_materializing("hyperparameter_search", tables.dataset, "--config-json", config).wait(300) == 0
        return registry.find_latest_run(tables.dataset, stage="hyperparameter_search")

    split = tables.split()
    train = split[split["part"] == "train"]
    fingerprint = dataset_fingerprint(split, GTZAN57.feature_version)
    first = search()
    trials = registry.runs_on(tables.dataset, stage="trial", fingerprint=fingerprint)
    assert {run.data.tags["mlflow.parentRunId"] for run in trials} == {first.info.run_id}
    assert {run.data.params["regParam"] for run in trials} == {"0.005", "0.02", "0.05", "0.1"}
    for run in trials:
        answers = registry.read_json(run, "out_of_fold.json")
        assert set(answers["right"]) <= set(train["track_id"])
        is_complete = run.data.tags["is_complete"] == "true"
        assert (len(answers["right"]) == len(train)) == is_complete
        assert run.data.metrics["cv_accuracy"] == pytest.approx(np.mean(list(answers["right"].values())))
    second = search()
    assert second.info.run_id != first.info.run_id
    assert len(registry.runs_on(tables.dataset, stage="trial", fingerprint=fingerprint)) == len(trials), "none again"
    found = registry.read_json(second, FOUND)
    assert found == registry.read_json(first, FOUND)

    # Few clips tell nothing apart from the default: what a larger table would have found is put there.
    found = {GTZAN57.feature_version: {"LogisticRegression": {"regParam": 0.1}}}
    registry.client.log_dict(second.info.run_id, found, FOUND)
    config = json.dumps({"ops": {"genre_classifiers": {"config": {"classifiers": ["LogisticRegression"]}}}})
    assert start_materializing("genre_classifiers", tables.dataset, "--config-json", config).wait(300) == 0
    (child,) = registry.child_runs(registry.latest_training(tables.dataset))
    assert child.data.params["regParam"] == "0.1"
