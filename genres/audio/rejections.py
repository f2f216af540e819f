"""Why a clip is refused, or cannot be judged: every reason for a refusal there is, by name and with its text.

A reason's name is its code, for counting and filtering; a row of the quarantine has the code and the text. A reason
that is not listed here does not exist: whoever refuses a clip, be it the gate, a message's reader or the search for
what killed a worker, does so by a `RejectedAudio` with one of these. What says nothing of a clip's bytes is a
`NotJudgedError` instead.
"""

from enum import Enum, unique
from functools import partial
from typing import Any

from genres.errors import GenresError

CLIP_OR_MACHINE = "the clip or the machine is at fault"
"""What stands in the text of a `ClipOrMachineError`, by which it is known where errors come as text, as from Spark."""


@unique
class Reason(Enum):
    """A reason for refusing a clip; the value is the template of its text."""

    # What the file is.
    UNREAD_SUFFIX = "suffix {suffix!r}; read are {read}"
    EMPTY_FILE = "the file is empty"
    TOO_MANY_BYTES = "{size:,} bytes; {limit_s:g} s of audio may have {limit:,} (GENRES_MAX_CLIP_S)"
    NOT_AUDIO = "not a {expected} file: it begins with {beginning!r}"
    OTHER_CONTAINER = "a {found} file named {suffix}"

    # What its header says.
    SHORT_HEADER = "{container} header of {size} bytes; it has {expected}"
    NO_FORMAT = "no format chunk before the data"
    SHORT_FORMAT = "format chunk of {size} bytes; the shortest is {expected}"
    NO_DATA = "no data chunk"
    UNREAD_ENCODING = "{encoding}; read are {read}"
    UNREAD_SUBFORMAT = "unknown sub-format in an extensible format chunk"
    UNREAD_BITS = "{bits} bits a sample in {encoding}"
    BLOCK_ALIGN = "block align {block_align} for {channels} channels of {bits} bits"
    DATA_OUTSIDE = "{container} data begin at byte {offset:,} of {size:,}"
    CHANNELS = "{channels:,} channels; 1 to {limit} are read"
    CHANNEL_LAYOUT = "{channels} channels whose positions the file does not say; they cannot be mixed to one"
    SAMPLE_RATE = "{rate:,} Hz; {lowest:,} to {highest:,} Hz are read"

    # Header against data.
    NO_SAMPLES = "no samples in it"
    LESS_THAN_A_BLOCK = "{encoding}: {size:,} bytes of data are less than one block of {block:,}"
    TOO_LONG = "{length} s long; at most {limit:g} s are read (GENRES_MAX_CLIP_S)"
    CUT_SHORT = "{container} header says {promised:,} bytes, the file has {present:,}"
    TRUNCATED = "header promises {promised} s, the file holds {present} s"
    ENDS_IN_A_PAGE = "the last Ogg page is cut off: the end of the file is missing"
    MORE_BEHIND = "header promises {promised} s of data, but {more:,} bytes follow"
    LONGER_THAN_HEADER = "header promises {promised} s, the file goes on"
    UNKNOWN_LENGTH = "neither the header nor the last frame says how long it is"
    SEVERAL_STREAMS = "{streams} streams in one {container} file; one is read"
    TABLES = "the tables of its samples contradict each other or the data"
    POSITIONS = "the positions in its Ogg pages contradict each other"
    FORMAT_CHANGES = "changes from {before} to {after} at byte {offset:,}"

    NO_FRAMES = "{tried:,} places look like an MPEG frame and are none"

    # What decoding shows.
    CANNOT_OPEN = "libsndfile cannot open it: {error}"
    CANNOT_DECODE = "libsndfile cannot decode it: {error}"
    NO_FFMPEG = "{suffix} files are read with ffmpeg, which is not installed here (apt install ffmpeg)"
    FFMPEG = "ffmpeg cannot decode it: {error}"
    OTHER_FORMAT = "begins like {container}, libsndfile finds {found}"
    NOT_FINITE = "a sample is NaN or infinite"
    TOO_LOUD = "samples as large as {peak:.3g}; full scale is 1"

    # What the features need.
    TOO_SHORT = "{samples:,} samples ({length:.3f} s) long; features need {needed_s:.3f} s, {needed:,} samples"
    FEATURES_NOT_FINITE = "features are not finite: {columns}"

    # What computing them does.
    FEATURES_FAILED = "computing its features failed: {error}"
    KILLED_WORKER = "killed its worker {times} times, alone, while known-good clips passed"
    ENDED_PROCESS = "it ended the process that computed its features, also alone"

    # What the source of the clip says: the file, the message, or the claim check in it.
    CANNOT_READ = "the file cannot be read: {error}"
    BAD_MESSAGE = "bad message: {error}"
    CLAIM_MISSING = "its claim check names {path}, which HDFS does not have"
    CLAIM_DENIED = "its claim check names {path}, which is in another lake and may not be read"
    CLAIM_OF_OTHER_SIZE = "the file behind its claim check has {size:,} bytes, not the {sent:,} that were sent"
    CLAIM_DIFFERS = "the bytes behind the claim check are not those that were sent"

    @property
    def code(self) -> str:
        """The reason's name, in lower case."""
        return self.name.lower()


class RejectedAudio(Exception):  # noqa: N818  (a verdict on a clip, not a fault of the program)
    """These bytes are not audio that the pipeline reads.

    Parameters
    ----------
    reason
        Which of the reasons it is.
    **facts
        What the reason's text names.
    """

    def __init__(self, reason: Reason, **facts: Any) -> None:
        super().__init__(reason.value.format(**facts))
        self.code = reason
        self._facts = facts

    def __reduce__(self) -> Any:
        # By default, an exception is unpickled from its text.
        return partial(type(self), self.code, **self._facts), ()

    @property
    def reason(self) -> str:
        """The reason's text, as it stands in the quarantine."""
        return str(self)

    @property
    def columns(self) -> dict[str, str]:
        """The columns that say the reason in every table with refused clips."""
        return {"reason": self.reason, "reason_code": self.code.code}


class NotJudgedError(GenresError):
    """The machine kept a clip from being judged, for want of disk, say: nothing is known of its bytes."""


class ClipOrMachineError(NotJudgedError):
    """What ended the work at a clip, which it says, may be the clip or the machine; alone, the clip would show it."""

    def __str__(self) -> str:
        return f"{super().__str__()}: {CLIP_OR_MACHINE}; look at free memory, and try again"


def told_apart(one: float, other: float) -> tuple[str, str]:
    """Return two different numbers of seconds with as many digits as it takes to see the difference."""
    for digits in range(1, 6):
        texts = f"{one:.{digits}f}", f"{other:.{digits}f}"
        if texts[0] != texts[1]:
            break
    return texts


def truncated(promised_s: float, present_s: float) -> RejectedAudio:
    """Return the verdict on a file that holds less than its header promises."""
    promised, present = told_apart(promised_s, present_s)
    return RejectedAudio(Reason.TRUNCATED, promised=promised, present=present)
