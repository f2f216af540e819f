"""Addresses of the services: checked for the form that every client takes, shown without secrets, kept from proxies."""

import os
import re
from urllib.parse import urlsplit

from genres.errors import GenresError
from genres.settings import Settings

_HOST_PORT = r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):\d{1,5}"
_FORMS = {
    "hdfs_url": (rf"hdfs://{_HOST_PORT}/?", "hdfs://<host>:<port>"),
    "webhdfs_url": (rf"https?://{_HOST_PORT}/?", "http://<host>:<port>"),
    "kafka_bootstrap_servers": (rf"{_HOST_PORT}(,\s*{_HOST_PORT})*", "<host>:<port>[,<host>:<port>…]"),
    "spark_remote": (rf"sc://({_HOST_PORT}|[A-Za-z0-9._-]+)(/.*)?", "sc://<host>:<port>"),
    "mlflow_tracking_uri": (
        r"https?://(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:\d{1,5})?(/[^;?#@]*)?",
        "http://<host>:<port>",
    ),
}
_PARTS = re.compile(r"((?:[\w+.-]+://)?)([^;?#]*)([;?#]?)(.*)", re.DOTALL)
"""Scheme, host with what stands before and after it, a sign, parameters; of any text."""
_HINTS = {
    "hdfs_url": (
        r"hdfs://[A-Za-z0-9._-]+/?",
        "; a nameservice (HA) cannot be used: name the NameNode that is active, in GENRES_WEBHDFS_URL too",
    ),
    "mlflow_tracking_uri": (
        r".*@.*",
        ", and the user in MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD in the environment",
    ),
}
"""What else to say of a malformed address that matches a pattern."""


def without_secrets(address: str) -> str:
    """Return an address as it may be shown: without user and password, and without parameters such as a token.

    Parameters
    ----------
    address
        Any text that is meant as one; malformed ones too, of which more is left out when in doubt.
    """
    parts = _PARTS.fullmatch(address)
    assert parts is not None  # noqa: S101 - it matches any text
    scheme, place, sign, parameters = parts.groups()
    if "@" in parameters:  # which of both it belongs to cannot be told
        return f"{scheme}***"
    user, at, place = place.rpartition("@")
    if scheme == "sc://":
        place, slash, path = place.partition("/")
        if slash and sign == ";" and not path:  # as it should be; who reads the address needs no more
            slash = sign = parameters = ""
        place += slash + ("***" if path else "")
    return f"{scheme}{'***' if user else ''}{at}{place}{sign}{'***' if parameters else ''}"


def bypass_proxies(settings: Settings) -> None:
    """Have this process and its children talk to loopback and to the services' addresses without a proxy.

    Each process of ours comes by here before it asks anything of a service: the command, the stack that it starts, and
    the code locations. So this is where libraries are told of ``GENRES_CA_FILE`` too.
    """
    os.environ |= settings.no_proxy_variables
    os.environ |= settings.client_variables


def require_addresses(settings: Settings) -> None:
    """Refuse addresses that are malformed; whether anything answers there is not asked.

    Raises
    ------
    GenresError
        Names the first such setting, its value without secrets, and the form that it should have.
    """
    for name, (_, form) in _FORMS.items():
        value = getattr(settings, name)
        if value and (hint := _fault(name, value)) is not None:
            raise GenresError(
                f"GENRES_{name.upper()} = {without_secrets(value)!r} is no address of its kind: write {form}{hint}"
            )
    if "spark" in settings.embedded and settings.has_spark_token:
        raise GenresError(
            "SPARK_CONNECT_AUTHENTICATE_TOKEN is set, with which Spark's client speaks TLS, and the embedded server "
            "does not: unset it, or set GENRES_SPARK_REMOTE to the server that it is for"
        )


def _fault(name: str, address: str) -> str | None:
    """Return None of an address that clients take, else what is to be said of it beside its form, if anything."""
    if not re.fullmatch(_FORMS[name][0], address):
        sign, hint = _HINTS.get(name, ("", ""))
        return hint if re.fullmatch(sign, address) else ""
    # Clients fail at these in ways of their own, of which few are errors of a connection.
    for place in [address] if "://" in address else [f"//{server.strip()}" for server in address.split(",")]:
        try:
            parts = urlsplit(place)
            _ = parts.port
        except ValueError:
            return ", with a port of at most 65535, and brackets around an IPv6 address alone"
        host = parts.hostname or ""
        if ":" not in host and not all(0 < len(label) < 64 for label in host.removesuffix(".").split(".")):
            return ", with 1 to 63 characters between the dots of the host's name"
    return None
