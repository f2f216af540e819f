"""What ``genres models`` works with: a dataset's versions, opened."""

from genres.addresses import bypass_proxies
from genres.settings import Settings
from genres.store.champions import Champions
from genres.store.database import Database
from genres.store.lake import Lake
from genres.store.ledger import dataset_meant, registered_dataset
from genres.store.model_registry import ModelRegistry


def open_champions(settings: Settings, dataset: str) -> Champions:
    """Open the versions of a dataset's model.

    Parameters
    ----------
    dataset
        Its id; empty for the one the settings mean: their folder's, else the current one.
    """
    bypass_proxies(settings)
    database = Database.opened(settings.database)
    meant = dataset_meant(database, **settings.meaning(dataset))
    entry = registered_dataset(database, meant)
    return Champions(ModelRegistry(settings.tracking_uri), Lake.of(settings), database, entry.dataset)
