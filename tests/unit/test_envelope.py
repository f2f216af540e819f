"""The envelope: what is written is read back, and nothing else is taken for an envelope."""

import hashlib
import subprocess
import sys
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming_sensors.envelope import UNREADABLE, BadEnvelopeError, ClipMessage, Headers, decode, encode

ROOT = "/genres/stream/claims"
MOMENT = datetime(2026, 3, 1, 12, 30, 0, 250_000, UTC)


def inline(data: bytes = b"RIFF", **about: object) -> ClipMessage:
    fields = {"file_name": "a.wav", "suffix": ".wav", "created_at": MOMENT, "genre": None} | about
    return ClipMessage(hashlib.sha256(data).hexdigest(), size=len(data), data=data, **fields)  # type: ignore[arg-type]


def claim(**about: object) -> ClipMessage:
    sha256 = hashlib.sha256(b"elsewhere").hexdigest()
    fields = {"file_name": "b.flac", "suffix": ".flac", "size": 9, "created_at": MOMENT}
    fields["claim_path"] = f"/genres/stream/claims/{sha256}.flac"
    return ClipMessage(sha256, **(fields | about))  # type: ignore[arg-type]


names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
abouts = st.fixed_dictionaries(
    {
        "file_name": names,
        "suffix": st.from_regex(r"\.[a-z0-9]{1,8}", fullmatch=True),
        "created_at": st.datetimes(
            min_value=datetime(1970, 1, 2), max_value=datetime(2199, 12, 31), timezones=st.just(UTC)
        ),
        "genre": st.none() | names,
    }
)


@given(data=st.binary(min_size=1), about=abouts)
def test_inline_clip_is_read_as_it_was_written(data: bytes, about: dict[str, object]) -> None:
    message = inline(data, **about)
    assert decode(*encode(message)) == message


@given(
    data=st.binary(min_size=1),
    about=abouts,
    root=st.sampled_from([ROOT, "/a/b-c.d_1/stream/claims", "/é/stream/claims"]),
    day=st.sampled_from(["", "/2026-05-18"]),
)
def test_claim_check_is_read_as_it_was_written(data: bytes, about: dict[str, object], root: str, day: str) -> None:
    sha256 = hashlib.sha256(data).hexdigest()
    path = f"{root}{day}/{sha256}{about['suffix']}"
    message = ClipMessage(sha256, size=len(data), claim_path=path, **about)  # type: ignore[arg-type]
    key, value, headers = encode(message)
    assert value
    assert decode(key, value, headers) == message


@given(
    key=st.none() | st.binary() | st.just(b"0" * 64),
    value=st.none() | st.binary(),
    headers=st.none()
    | st.lists(
        st.tuples(
            st.sampled_from(["envelope_version", "payload", "file_name", "suffix", "size", "created_at", "genre"])
            | st.text(),
            st.none()
            | st.binary()
            | st.sampled_from([b"1", b"inline", b"claim", b".wav", b"2026-01-01T00:00:00+00:00"]),
        )
    ),
)
def test_whatever_comes_is_a_clip_or_a_bad_envelope(
    key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes | None]] | None
) -> None:
    try:
        message = decode(key, value, headers)
    except BadEnvelopeError as error:
        assert error.reason
    else:
        assert decode(*encode(message)) == message


def changed(headers: Headers, name: str, content: bytes | None) -> list[tuple[str, bytes | None]]:
    """Replace a header, or leave it out."""
    rest: list[tuple[str, bytes | None]] = [header for header in headers if header[0] != name]
    return rest if content is None else [*rest, (name, content)]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("envelope_version", None, "no envelope"),
        ("envelope_version", b"2", "envelope version '2'"),
        ("payload", None, "no header payload"),
        ("payload", b"zip", "header payload is 'zip'"),
        ("file_name", None, "no header file_name"),
        ("file_name", b"\xff.wav", "header 'file_name' is not UTF-8"),
        ("suffix", b"/../x", "header suffix"),
        ("size", b"3", "header size is 3, the value has 4 bytes"),
        ("size", b"-4", "header size is '-4'"),
        ("size", "٤".encode(), "header size"),
        ("created_at", b"yesterday", "header created_at is 'yesterday'"),
        ("created_at", b"2026-03-01T12:30:00", "header created_at is .*no time with a zone"),
        ("created_at", b"9999-03-01T12:30:00+00:00", "header created_at is"),
        ("file_name", b"a\0b.wav", "header 'file_name' has a NUL"),
        ("genre", b"x" * 5000, "header 'genre' has a NUL or more than 4,096"),
        ("created_at", b"0001-01-01T00:00:00+14:00", "header created_at"),
    ],
)
def test_wrong_header_is_named(name: str, content: bytes | None, reason: str) -> None:
    key, value, headers = encode(inline())
    with pytest.raises(BadEnvelopeError, match=reason):
        decode(key, value, changed(headers, name, content))


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        (None, b"RIFF", "the key is no sha256"),
        (b"RIFF", b"RIFF", "the key is no sha256"),
        (b"0" * 64, b"RIFF", "the key is not the sha256 of the value"),
        (b"0" * 64, None, "the value is empty"),
        (b"0" * 64, b"", "the value is empty"),
    ],
)
def test_wrong_key_or_value_is_named(key: bytes | None, value: bytes | None, reason: str) -> None:
    with pytest.raises(BadEnvelopeError, match=reason):
        decode(key, value, encode(inline())[2])


@pytest.mark.parametrize(
    "folder",
    [
        "",
        "/genres",
        "/genres/stream/claims/..",
        "/genres/stream/claims/",
        "//genres/stream/claims",
        "/genres/stream/claims/a:b",
        "/genres/stream/claims/2026-05-18/2026-05-18",
        "/genres/stream/claimsx/2026-05-18",
        "/genres/stream/claims2026-05-18",
        "/user/other",
        "/a:b/stream/claims",
        "/./stream/claims",
        "/a\0b/stream/claims",
        "/\x1b[31m/stream/claims",
        "/a\nb/stream/claims",
        "/a b/stream/claims",
        "claims",
    ],
)
def test_claim_check_names_only_what_a_producer_puts_there(folder: str) -> None:
    """What HDFS does not take for a path would be an outage of its own."""
    key, value, headers = encode(claim())
    name = value.decode().rpartition("/")[2]
    for path in (f"{folder}/{name}", f"{folder}/2026-05-18{name}", f"{ROOT}/x{name}", f"{ROOT}/{name}.wav", "/\xff"):
        with pytest.raises(BadEnvelopeError, match=r"claim check names .* in a lake's stream/claims"):
            decode(key, path.encode("latin-1"), headers)


def test_headers_that_cannot_be_read_are_named() -> None:
    key, value, headers = encode(inline())
    with pytest.raises(BadEnvelopeError, match="its headers cannot be read"):
        decode(key, value, [*headers, (UNREADABLE, None)])


def test_reading_envelopes_needs_no_kafka() -> None:
    code = "import sys; import streaming_sensors.envelope; print({'kafka', 'numpy', 'dagster'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
