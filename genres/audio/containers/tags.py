"""ID3 tags around a file, which some programs put around any container."""

ID3V1_BYTES = 128
"""Size of a tag of version 1, at the end of a file; it begins with ``TAG``."""


def skip_id3v2(data: bytes) -> int:
    """Return where the file begins behind its ID3v2 tags (id3.org, "ID3 tag version 2.4.0", 3.1)."""
    at = 0
    while data[at : at + 3] == b"ID3" and len(data) >= at + 10:
        size = 0
        for byte in data[at + 6 : at + 10]:
            if byte & 0x80:  # not a size of seven bits a byte, so not a tag
                return at
            size = size << 7 | byte
        has_footer = bool(data[at + 5] & 0x10)
        at += 20 + size if has_footer else 10 + size
    return min(at, len(data))
