"""Addresses of services that somebody else runs, checked for the form that every client will take."""

import re

from genres.errors import GenresError
from genres.settings import Settings

_HOST_PORT = r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):\d{1,5}"
_FORMS = {
    "hdfs_url": (rf"hdfs://{_HOST_PORT}/?", "hdfs://<host>:<port>"),
    "webhdfs_url": (rf"https?://{_HOST_PORT}/?", "http://<host>:<port>"),
    "kafka_bootstrap_servers": (rf"{_HOST_PORT}(,\s*{_HOST_PORT})*", "<host>:<port>[,<host>:<port>…]"),
    "spark_remote": (rf"sc://({_HOST_PORT}|[A-Za-z0-9._-]+)(/.*)?", "sc://<host>:<port>"),
    "mlflow_tracking_uri": (r"https?://(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:\d{1,5})?(/.*)?", "http://<host>:<port>"),
}


def require_addresses(settings: Settings) -> None:
    """Refuse addresses that are malformed; whether anything answers there is not asked.

    Raises
    ------
    GenresError
        Names the first such setting, its value and the form that it should have.
    """
    for name, (pattern, form) in _FORMS.items():
        value = getattr(settings, name)
        if value and not re.fullmatch(pattern, value):
            raise GenresError(f"GENRES_{name.upper()} = {value!r} is no address of its kind: write {form}")
