"""Which sample rates and channels are read, whatever the container."""

from genres.audio.rejections import Reason, RejectedAudio

MAX_CHANNELS = 8
"""Most channels that are read: up to eight, every container has a usual order of loudspeakers (mono to 7.1). Like
``librosa.to_mono``, the decoder averages them."""
SAMPLE_RATES = (8_000, 192_000)
"""Lowest and highest sample rate that is read, in Hz."""


def check_layout(rate: int, channels: int, *, is_known: bool = True) -> None:
    """Raise `RejectedAudio` unless the sample rate and the number of channels are read.

    Parameters
    ----------
    rate
        In Hz.
    channels
        Their number.
    is_known
        False if the file says that more than two channels have no places in a room (microphones, Ambisonics).
    """
    if not 1 <= channels <= MAX_CHANNELS:
        raise RejectedAudio(Reason.CHANNELS, channels=channels, limit=MAX_CHANNELS)
    if channels > 2 and not is_known:
        raise RejectedAudio(Reason.CHANNEL_LAYOUT, channels=channels)
    lowest, highest = SAMPLE_RATES
    if not lowest <= rate <= highest:
        raise RejectedAudio(Reason.SAMPLE_RATE, rate=rate, lowest=lowest, highest=highest)
