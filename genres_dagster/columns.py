"""Column schemas and lineage as Dagster metadata."""

from collections.abc import Mapping, Sequence

import dagster as dg

TRACK_COLUMNS = {
    "track_id": ("string", "Unique within the dataset."),
    "genre": ("string", "The label: the folder's name."),
    "sha256": ("string", "Of the clip's bytes."),
}


def column_schema(columns: Mapping[str, tuple[str, str]], *, nullable: Sequence[str] = ()) -> dg.TableSchema:
    """Build a table's schema from column name to (type, description)."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                name, type_, description=text, constraints=dg.TableColumnConstraints(nullable=name in nullable)
            )
            for name, (type_, text) in columns.items()
        ]
    )


def column_lineage(sources: Mapping[str, Sequence[tuple[dg.AssetKey | str, str]]]) -> dg.TableColumnLineage:
    """Build a table's lineage from column name to the (asset, column) pairs that it comes from."""
    return dg.TableColumnLineage(
        deps_by_column={
            name: [dg.TableColumnDep(asset_key=asset, column_name=column) for asset, column in pairs]
            for name, pairs in sources.items()
        }
    )
