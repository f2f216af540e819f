"""One pass over a clip's spectra, which the feature sets ``gtzan57`` and ``librosa96`` share.

`analysis` says what is measured, `loops` holds what numba compiles. Importing this package loads neither.
"""

import sys
from pathlib import Path


def is_compiled(function: str) -> bool:
    """Return whether a function of `loops` has been compiled since the file was changed last."""
    from genres.audio.spectral import loops

    source = Path(loops.__file__)
    indices = Path(getattr(loops, function).stats.cache_path).glob(
        f"{source.stem}.{function}-*.py{sys.version_info.major}{sys.version_info.minor}.nbi"
    )
    return any(index.stat().st_mtime >= source.stat().st_mtime for index in indices)


def _unpack_loops() -> None:
    """Let `loops` be imported from a real file, always the same one, where this package lies in a zip.

    Spark's workers get the project's code as a zip, each session's in a folder of its own. Numba keeps what it compiled
    by the place of the source: every session would compile for ten seconds in each worker, and leave its files behind.
    """
    import hashlib
    import os
    import pkgutil
    import tempfile

    from genres.errors import GenresError
    from genres.settings import Settings

    source = pkgutil.get_data(__name__, "loops.py") or b""
    version = hashlib.sha256(source).hexdigest()[:16]
    cache_dir = Settings().cache_dir
    # A container's user may have no home.
    for place in (cache_dir / "loops", Path(tempfile.gettempdir(), f"genres-loops-{os.getuid()}")):
        folder = place / version
        try:
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.mkdir(exist_ok=True)
            handle, beside = tempfile.mkstemp(dir=folder)
        except OSError:
            continue
        if place.stat().st_uid == os.getuid():  # numba runs whatever it finds there
            break
    else:
        raise GenresError(
            f"nothing can be written to {cache_dir}, where compiled loops are kept: set GENRES_CACHE_DIR to a folder "
            "that Spark's workers may write to"
        )
    with os.fdopen(handle, "wb") as file:
        file.write(source)
    # Workers come here side by side. The file that is there stays: older releases of numba look at its date.
    if (folder / "loops.py").exists():
        Path(beside).unlink()
    else:
        Path(beside).replace(folder / "loops.py")
    __path__.insert(0, str(folder))


if not Path(__file__).is_file():
    _unpack_loops()
