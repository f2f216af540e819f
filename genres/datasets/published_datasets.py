"""Every published dataset that the pipeline knows. Another one is a module of its facts and a line here."""

from collections.abc import Iterable

from genres.datasets.gtzan import GTZAN
from genres.datasets.published_dataset import PublishedDataset

PUBLISHED: tuple[PublishedDataset, ...] = (GTZAN,)
"""Every published dataset; where two have the same tracks, the first one is recognised."""


def published_dataset(labels: Iterable[tuple[str, str]]) -> PublishedDataset | None:
    """Return the published dataset that every (track id, genre) belongs to, if there is one."""
    pairs = list(labels)
    return next((published for published in PUBLISHED if published.recognises(pairs)), None)
