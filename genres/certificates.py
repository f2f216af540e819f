"""Certificates: which ones our HTTPS clients trust, and why a connection over TLS fails, in one line.

Belongs here: what WebHDFS, MLflow and the health probes have in common. Kafka's clients have settings of their own
(`genres.kafka_client`), and ways out of their own where TLS fails; what reads the file of authorities and finds the
reason in an error is for them too.
"""

import ssl
from pathlib import Path

from genres.errors import GenresError

OTHER_NAME = {62, 64}
"""OpenSSL's codes for a certificate that is of another name or address than the one that was asked for."""
NO_TLS = {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"}
"""OpenSSL's reasons where the other side speaks something else."""


def trusted(ca_file: Path | None) -> str | bool:
    """Return what a session of requests takes as ``verify``.

    Parameters
    ----------
    ca_file
        ``GENRES_CA_FILE``; None for the authorities that certifi lists.

    Raises
    ------
    GenresError
        If the file is not one of certificates.
    """
    if ca_file is None:
        return True
    load_authorities(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ca_file, setting="GENRES_CA_FILE")
    return str(ca_file)


def load_authorities(context: ssl.SSLContext, ca_file: Path, *, setting: str) -> None:
    """Have a context trust the authorities of a file.

    Parameters
    ----------
    setting
        Which one names the file.

    Raises
    ------
    GenresError
        If the file is not one of certificates.
    """
    try:
        context.load_verify_locations(ca_file)
    except OSError as error:  # ssl.SSLError is one: no certificate in it
        raise GenresError(
            f"{setting} = {ca_file}: {error.strerror or error}: name a PEM file of certificates that this user may read"
        ) from error


def tls_error(error: BaseException | None) -> ssl.SSLError | None:
    """Return the TLS error that a client's error was made of, if it was one."""
    while error is not None:
        for candidate in (error, *error.args):
            if isinstance(candidate, ssl.SSLError):
                return candidate
        error = error.__cause__ or error.__context__
    return None


def https_refusal(error: BaseException, ca_file: Path | None) -> str | None:
    """Return why an ``https://`` address is of no use, and what to do; None if the error may pass.

    Parameters
    ----------
    error
        What requests raised.
    ca_file
        ``GENRES_CA_FILE``.
    """
    tls = tls_error(error)
    if isinstance(tls, ssl.SSLCertVerificationError):
        if tls.verify_code in OTHER_NAME:
            return (
                f"its certificate is of another host ({tls.verify_message}): write the name that the certificate has "
                "into the address"
            )
        return (
            f"its certificate is of an authority that GENRES_CA_FILE = {ca_file or '(empty: those of certifi)'} does "
            f"not have ({tls.verify_message}): name the PEM file of its authority"
        )
    if tls is not None and tls.reason in NO_TLS:
        return f"it does not speak TLS ({tls.reason}): write http:// instead of https://"
    return None
