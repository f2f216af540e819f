"""What ``genres models`` does: open a dataset's versions, change its champion and let Dagster know."""

import dagster as dg

from genres.addresses import bypass_proxies
from genres.settings import Settings
from genres.store.champions import ChampionChange, Champions
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
    database = Database(settings.database)
    database.check_migrated()
    meant = dataset_meant(database, **settings.meaning(dataset))
    entry = registered_dataset(database, meant)
    return Champions(ModelRegistry(settings.tracking_uri), Lake.of(settings), database, entry.dataset)


def tell_dagster(settings: Settings, change: ChampionChange) -> None:
    """Let Dagster know of a change that no run of its made: what the champion's answers depend on is stale now."""
    from genres_dagster.launch import open_instance

    materialization = dg.AssetMaterialization(
        "champion_model",
        partition=change.dataset,
        description=f"{change.action} by {change.changed_by}: {change.why}",
        metadata={
            "champion_version": change.model_version,
            "previous_version": change.previous_version or "none",
            "changed_by": change.changed_by,
            "why": change.why,
        },
        # As champion_model itself gives it.
        tags={"dagster/data_version": f"{change.model_name}-{change.model_version}"},
    )
    with open_instance(settings) as instance:
        instance.report_runless_asset_event(materialization)


def in_words(change: ChampionChange) -> str:
    """Return a line about a change."""
    before = f"version {change.previous_version} was it before" if change.previous_version else "there was none before"
    return (
        f"{change.model_name} version {change.model_version} is the champion now ({before}); streams take it at their "
        "next range, batch predictions when batch_predictions is materialized"
    )
