"""What people run against a cluster: the ``genres`` command, and runs of a dataset's assets."""

import os
import subprocess
import sys
from pathlib import Path

from genres.settings import PROJECT_DIR, Settings


def run_genres(*arguments: str, audio: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the ``genres`` command with the settings of this process's environment."""
    environment = {**os.environ, "GENRES_AUDIO": str(audio or ""), "COLUMNS": "200"}
    command = [sys.executable, "-m", "genres_cli", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)


def start_materializing(settings: Settings, assets: str, dataset: str) -> subprocess.Popen[bytes]:
    """Start a run of a dataset's assets."""
    command = [sys.executable, "-m", "dagster", "asset", "materialize", "-m", "genre_assets.definitions"]
    log = run_log(settings)
    log.parent.mkdir(exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            [*command, "--select", assets, "--partition", dataset], cwd=PROJECT_DIR, stdout=output, stderr=output
        )


def run_log(settings: Settings) -> Path:
    """What the runs printed."""
    return settings.state_dir / "logs" / "materialize.log"
