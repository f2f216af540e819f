"""The envelope: how one clip is written as one Kafka message, and read back.

Belongs here: the message's key, headers and value, their version, and what makes a message none of ours. Does not
belong here: Kafka clients, files, and judging the audio itself. The folder producer writes envelopes; the Python
workers of Spark read them, so this module imports nothing heavy.

===================  ===============================================================================
part of the message  what it holds
===================  ===============================================================================
key                  sha256 of the clip's bytes, 64 hexadecimal digits in ASCII
value                the clip's bytes (inline), or its path on HDFS in UTF-8 (claim check)
``envelope_version`` ``1``
``payload``          ``inline`` or ``claim``
``file_name``        the file's name as text; data, never a path
``suffix``           the name's suffix in lower case, with its dot
``size``             the clip's size in bytes
``created_at``       ISO 8601, UTC
``genre``            the true genre; absent if unknown
===================  ===============================================================================

The value is never empty: Kafka takes a null value for a deletion in a compacted topic.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

VERSION = "1"
"""The envelope's version; raised with every change that an older reader would misread."""

Headers = list[tuple[str, bytes]]
"""A Kafka message's headers."""


UNREADABLE = "\ufffd"
"""Stands for the headers of a message whose own cannot be read, as a name that is no text; see `record_headers`."""


class BadEnvelopeError(Exception):
    """A message that is no envelope of a version that is read here. The text is the reason."""

    @property
    def reason(self) -> str:
        """The reason, as it stands in the quarantine."""
        return str(self)


@dataclass(frozen=True)
class ClipMessage:
    """One clip on its way: inline with its bytes, or as a claim check with its place on HDFS."""

    sha256: str
    """Of the clip's bytes, 64 lower-case hexadecimal digits."""
    file_name: str
    """The file's name as text; data, never a path."""
    suffix: str
    """The name's suffix in lower case, with its dot, such as ``.wav``."""
    size: int
    """The clip's size in bytes."""
    created_at: datetime
    """When the clip came into the watched folder, in UTC: what latency is counted from."""
    genre: str | None = None
    """The true genre, if the folder named one."""
    data: bytes | None = None
    """The clip's bytes; None for a claim check."""
    claim_path: str | None = None
    """Path on HDFS of a clip too large for a message, ``…/<day>/<sha256><suffix>``; None for an inline clip.

    Whoever fetches it has to compare size and sha256: the message cannot vouch for the file.
    """


def encode(message: ClipMessage) -> tuple[bytes, bytes, Headers]:
    """Write a clip as key, value and headers of a Kafka message.

    Parameters
    ----------
    message
        With either `data` or `claim_path`.

    Returns
    -------
    tuple
        The key, the value and the headers, of which `decode` makes an equal `ClipMessage`.
    """
    if message.claim_path is not None:
        payload, value = b"claim", message.claim_path.encode()
    else:
        payload, value = b"inline", message.data or b""
    headers = [
        ("envelope_version", VERSION.encode()),
        ("payload", payload),
        ("file_name", message.file_name.encode()),
        ("suffix", message.suffix.encode()),
        ("size", b"%d" % message.size),
        ("created_at", message.created_at.astimezone(UTC).isoformat().encode()),
    ]
    if message.genre is not None:
        headers.append(("genre", message.genre.encode()))
    return message.sha256.encode("ascii"), value, headers


def decode(key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes | None]] | None) -> ClipMessage:
    """Read a Kafka message as a clip.

    Parameters
    ----------
    key, value, headers
        As kafka-python's ``ConsumerRecord`` has them; anybody may have written them.

    Returns
    -------
    ClipMessage
        For an inline clip, with bytes whose size and hash are those that the message states. The bytes may
        still be no audio.

    Raises
    ------
    BadEnvelopeError
        With the reason, for everything else; no other exception, whatever the message.
    """
    texts = _texts(headers or ())
    version = texts.get("envelope_version")
    if version != VERSION:
        raise BadEnvelopeError(f"envelope version {version[:40]!r}; {VERSION!r} is read" if version else "no envelope")
    sha256 = (key or b"").decode("ascii", "replace")
    if not _SHA256.fullmatch(sha256):
        raise BadEnvelopeError("the key is no sha256")
    if not value:
        raise BadEnvelopeError("the value is empty")
    file_name, suffix, size = (_required(texts, name) for name in ("file_name", "suffix", "size"))
    if not _SUFFIX.fullmatch(suffix):
        raise BadEnvelopeError(f"header suffix is {suffix[:40]!r}")
    if not _SIZE.fullmatch(size):
        raise BadEnvelopeError(f"header size is {size[:40]!r}")
    created_at = _moment(_required(texts, "created_at"))
    about = (sha256, file_name, suffix, int(size), created_at, texts.get("genre"))
    match _required(texts, "payload"):
        case "inline":
            if len(value) != int(size):
                raise BadEnvelopeError(f"header size is {int(size):,}, the value has {len(value):,} bytes")
            if hashlib.sha256(value).hexdigest() != sha256:
                raise BadEnvelopeError("the key is not the sha256 of the value")
            return ClipMessage(*about, data=value)
        case "claim":
            return ClipMessage(*about, claim_path=_claim_path(value, sha256 + suffix))
        case other:
            raise BadEnvelopeError(f"header payload is {other[:40]!r}")


_SHA256 = re.compile(r"[0-9a-f]{64}")
_SUFFIX = re.compile(r"\.[a-z0-9]{1,8}")
_SIZE = re.compile(r"[0-9]{1,15}", re.ASCII)
_CLAIMS = re.compile(r"(/[\w.-]+)*/stream/claims(/[0-9]{4}-[0-9]{2}-[0-9]{2})?")
"""Folders of claim checks in any lake: producers may have another `lake_path`, or may have had one. It has the
characters that the setting may have: of others HDFS refuses some, as NUL, and a terminal acts on some."""
_MAX_HEADER_LENGTH = 4096
_YEARS = range(1970, 2200)
"""The years that every timestamp type on the way can hold."""


def _texts(headers: Sequence[tuple[str, bytes | None]]) -> dict[str, str]:
    """Return the headers as text that any database stores; of a repeated one the last."""
    texts = {}
    for name, content in headers:
        if UNREADABLE in name:
            raise BadEnvelopeError("its headers cannot be read: a name among them is not UTF-8")
        try:
            texts[name] = (content or b"").decode()
        except UnicodeDecodeError:
            raise BadEnvelopeError(f"header {name[:40]!r} is not UTF-8") from None
        if "\0" in texts[name] or len(texts[name]) > _MAX_HEADER_LENGTH:
            raise BadEnvelopeError(f"header {name[:40]!r} has a NUL or more than {_MAX_HEADER_LENGTH:,} characters")
    return texts


def _required(texts: dict[str, str], name: str) -> str:
    if name not in texts:
        raise BadEnvelopeError(f"no header {name}")
    return texts[name]


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None and moment.year in _YEARS:
            return moment.astimezone(UTC)
    except ValueError:
        pass
    raise BadEnvelopeError(f"header created_at is {text[:40]!r}, no time with a zone between 1970 and 2200")


def _claim_path(value: bytes, name: str) -> str:
    """Return the path that a claim check names; it must be one under which a producer puts this clip.

    What HDFS does not take for a path is no fault of HDFS's.
    """
    path = value[:1024].decode("utf-8", "replace")
    folder, _, found = path.rpartition("/")
    if found != name or not _CLAIMS.fullmatch(folder) or {".", ".."} & {*folder.split("/")}:
        raise BadEnvelopeError(f"claim check names {path[:80]!r}, not the clip's hash in a lake's stream/claims")
    return path
