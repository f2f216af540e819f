"""Column schemas and lineage as Dagster metadata."""

from collections.abc import Mapping, Sequence

import dagster as dg

from genres.store.schemas import Table


def column_schema(table: Table) -> dg.TableSchema:
    """Describe a table's columns to Dagster."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                column.name,
                column.kind,
                description=column.description,
                constraints=dg.TableColumnConstraints(
                    nullable=column.nullable, other=["primary key"] if column.key else []
                ),
            )
            for column in table.columns
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
