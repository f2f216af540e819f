"""Addresses of the services: checked for the form that every client will take, and kept away from proxies."""

import os
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


def bypass_proxies(settings: Settings) -> None:
    """Have this process and its children talk to loopback and to the services' addresses without a proxy.

    Each process of ours comes by here before it asks anything of a service: the command, the stack that it starts, and
    the code locations.
    """
    os.environ |= settings.no_proxy_variables


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
