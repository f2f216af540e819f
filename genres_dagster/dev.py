"""``dagster dev`` with our webserver: ``python -m genres_dagster.dev``."""

from typing import Any

from dagster._cli import dev
from dagster_shared.ipc import open_ipc_subprocess


def _start_guarded(parts: list[str], **how: Any) -> Any:
    """Start one of Dagster's processes; it has no setting for which webserver it starts."""
    return open_ipc_subprocess(
        ["genres_dagster.webserver" if part == "dagster_webserver" else part for part in parts], **how
    )


if __name__ == "__main__":
    setattr(dev, "open_ipc_subprocess", _start_guarded)  # noqa: B010 - a name that it imports
    dev.dev_command()
