"""The containers that are read: one module for each, from the bytes of a file to its `ClipHeader`.

Each module checks its header against itself and against the bytes that are there, and says where the sound lies. No
sample is decoded here. Limits that hold for every container are `genres.audio.gate`'s.

Where a header and the data disagree, the data win as long as the format is sure: lengths that are missing, are the
placeholder of a writer that could not go back, or are contradicted by a second length in the same header are replaced
by what is there. A length that is plausible and longer than the data means that the end of the file is missing.
"""
