"""An interpreter that has this project's requirements but not the project, as a cluster's workers have."""

import sys
import sysconfig
from pathlib import Path


def site_without_the_project(folder: Path) -> Path:
    """Link what is installed here, but for the project; the folder is for ``PYTHONPATH``, with ``python -S``."""
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        is_ours = path.name.startswith(("genres-", "genres.", "__editable__"))
        if not is_ours and path.suffix != ".pth":
            (folder / path.name).symlink_to(path)
    return folder


def interpreter_without_the_project(folder: Path) -> Path:
    """Write a launcher of that interpreter, which takes whatever else is on the path of its caller."""
    site = folder / "site"
    site.mkdir()
    site_without_the_project(site)
    python = folder / "python"
    python.write_text(
        f'#!/bin/sh\nexport PYTHONPATH="${{PYTHONPATH:+$PYTHONPATH:}}{site}"\nexec {sys.executable} -S "$@"\n'
    )
    python.chmod(0o755)
    return python
