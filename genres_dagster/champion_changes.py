"""Champions that a person changed: Dagster is told, and a line says what it means."""

from typing import TYPE_CHECKING

import dagster as dg

from genres.settings import Settings

if TYPE_CHECKING:
    from genres.store.champions import ChampionChange


def tell_dagster(settings: Settings, change: "ChampionChange") -> None:
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
        # As champion_model itself writes it.
        tags={"dagster/data_version": f"{change.model_name}-{change.model_version}"},
    )
    with open_instance(settings) as instance:
        instance.report_runless_asset_event(materialization)


def in_words(change: "ChampionChange") -> str:
    """Return a line about a change."""
    before = f"version {change.previous_version} was it before" if change.previous_version else "there was none before"
    return (
        f"{change.model_name} version {change.model_version} is the champion now ({before}); streams take it at their "
        "next range, batch predictions when batch_predictions is materialized"
    )
