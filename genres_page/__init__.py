"""The page to listen on: try a clip, watch the stream, look through a dataset's tracks and its models.

What it shows is read where the other rooms keep it; nothing is kept here, and nothing computed but the answer to a clip
that somebody drops.
"""
