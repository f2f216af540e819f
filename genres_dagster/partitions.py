"""The batch assets' partitions: one a dataset, so that two datasets never mix."""

import dagster as dg

from genres.store.ledger import Dataset

DATASETS = dg.DynamicPartitionsDefinition(name="dataset")
"""Dataset ids. ``genres load`` and ``genres demo`` add them."""

OWNERS = ["team:genres"]


def provenance(dataset: Dataset) -> str:
    """Return in words where the clips come from; stands wherever results of the dataset are shown."""
    if dataset.is_synthetic:
        return "synthetic sound: these results say nothing about music"
    return f"dataset {dataset.dataset}"
