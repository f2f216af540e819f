"""What libsndfile makes of a header whose length only a decoder of its encoding can tell."""

from genres.audio.clip_header import ClipHeader, Source
from genres.audio.containers.layout import check_layout
from genres.audio.rejections import Reason, RejectedAudio


def sndfile_header(
    data: bytes, container: str, source: Source, *, is_layout_known: bool = True, is_length_sure: bool = True
) -> ClipHeader:
    """Let libsndfile read the header; its length is checked again when decoding.

    Parameters
    ----------
    data
        The file.
    container
        What libsndfile must find in it.
    source
        Where it is to look.
    is_layout_known
        As for `check_layout`.
    is_length_sure
        As `ClipHeader` has it.

    Raises
    ------
    RejectedAudio
        If libsndfile cannot open it, finds something else or no length.
    """
    import soundfile

    try:
        info = soundfile.info(source.open(data))
    except soundfile.LibsndfileError as error:
        raise RejectedAudio(Reason.CANNOT_OPEN, error=error.error_string.strip()) from None
    if {"WAVEX": "WAV"}.get(info.format, info.format) != container:
        raise RejectedAudio(Reason.OTHER_FORMAT, container=container, found=info.format)
    check_layout(info.samplerate, info.channels, is_known=is_layout_known)
    # libsndfile's way to say that it does not know: the largest number there is.
    if info.frames >= 2**62:
        raise RejectedAudio(Reason.UNKNOWN_LENGTH)
    return ClipHeader(container, info.samplerate, info.channels, info.frames, source, is_length_sure=is_length_sure)
