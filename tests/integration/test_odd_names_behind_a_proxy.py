"""Genres that other systems have no letters for go through the whole batch half, and nothing of it asks a proxy."""

import socketserver
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from genre_assets.run_page import GENRE_TABLE
from genres.settings import Settings
from genres.store import predictions
from genres.store.batch_tables import BatchTables
from genres.store.database import Database
from genres.store.lake import Lake
from genres.store.model_registry import ModelRegistry

GENRES = {
    "blues": "R&B",
    "metal": "__HIVE_DEFAULT_PARTITION__",
    "disco": "ラップ 100% {a=b}: what?",
    "jazz": "x" * 250,
}
CLIPS = 6


@pytest.fixture
def proxy() -> Iterator[tuple[str, list[bytes]]]:
    """Yield the address of a proxy that takes everything down and answers nothing, and what it has heard."""
    heard: list[bytes] = []

    class Record(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            heard.append(self.request.recv(200))

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Record) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", heard
        server.shutdown()


@pytest.mark.long
def test_odd_genres_are_trained_on_and_predicted(
    stack: Settings,
    run_genres: Callable[..., Any],
    write_clips: Callable[..., None],
    tmp_path: Path,
    proxy: tuple[str, list[bytes]],
) -> None:
    folder = tmp_path / "odd names"
    write_clips(folder, GENRES, CLIPS)
    for plain, odd in GENRES.items():
        (folder / plain).rename(folder / odd)
    address, heard = proxy
    names = ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy")
    proxies = {variable: address for name in names for variable in (name, name.upper())}
    done = run_genres("demo", "--batch-only", audio=folder, **proxies, NO_PROXY="", no_proxy="", no_grpc_proxy="")
    assert done.returncode == 0, done.stdout + done.stderr
    assert heard == []

    database = Database(stack.database)
    tables = BatchTables(Lake.of(stack), database, "odd_names")
    labels = sorted(GENRES.values())
    rows = predictions.batch_predictions(database, "odd_names")
    assert len(rows) == len(tables.split()) == CLIPS * len(GENRES)
    assert sorted({row["genre"] for row in rows}) == labels
    assert all(sorted(row["probabilities"]) == labels for row in rows)
    registry = ModelRegistry(stack.tracking_uri)
    (child, *_) = registry.child_runs(registry.latest_training("odd_names"))
    figures = registry.read_json(child, GENRE_TABLE)
    assert set(labels) <= {row[figures["columns"].index("genre")] for row in figures["data"]}
    assert registry.read_json(child, "confusion_test.json")["genres"] == labels
