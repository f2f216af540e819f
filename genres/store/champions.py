"""The champion of a dataset: which version holds the alias, who gave it that, and how a person changes it."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from genres.audio.feature_sets import feature_set_of
from genres.errors import GenresError
from genres.store.database import Database
from genres.store.lake import Lake
from genres.store.model_directory import require_intact
from genres.store.model_facts import RegisteredModel
from genres.store.model_registry import ModelRegistry
from genres.store.sql import sa, tables

TRAINING, PROMOTE, ROLLBACK = "training", "promote", "rollback"
"""What moves the alias: a training that won, or a person."""
_LISTED = (
    *("classifier", "feature_version", "valid_macro_f1", "valid_tracks", "valid_ece"),
    *("test_macro_f1", "test_accuracy", "test_tracks"),
)


class ChampionChange(NamedTuple):
    """A move of the alias ``champion``."""

    dataset: str
    model_name: str
    model_version: int
    previous_version: int | None
    action: str
    changed_by: str
    why: str
    run_id: str | None
    changed_at: datetime


def changes(database: Database, dataset: str) -> list[ChampionChange]:
    """Read the recorded moves of a dataset's alias, oldest first."""
    table = tables.CHAMPION_CHANGES
    columns = [table.c[name] for name in ChampionChange._fields]
    query = sa.select(*columns).where(table.c.dataset == dataset).order_by(table.c.change_id)
    with database.reading() as connection:
        return [ChampionChange(*row) for row in connection.execute(query)]


def scorer(database: Database, dataset: str) -> str:
    """Return in words which version scores with a dataset's alias, as it is recorded; MLflow is not asked."""
    history = changes(database, dataset)
    if not history:
        return f"nothing: dataset '{dataset}' has no champion yet"
    return f"{history[-1].model_name} v{history[-1].model_version}"


def newest_change(database: Database, dataset: str) -> int:
    """Return a number that grows with each recorded move of the dataset's alias; 0 before the first one."""
    table = tables.CHAMPION_CHANGES
    query = sa.select(sa.func.max(table.c.change_id)).where(table.c.dataset == dataset)
    with database.reading() as connection:
        return connection.scalar(query) or 0


def version_before(history: Sequence[ChampionChange], present: int) -> int | None:
    """Return the version that a rollback leads to; None if nobody knows one.

    A rollback takes back what came after the version that it led to, so that a second one goes a step further back
    and not to where the first one came from.

    Parameters
    ----------
    history
        The moves of the alias, oldest first.
    present
        The version that has the alias now.
    """
    line: list[int] = []
    for change in history:
        if not line and change.previous_version is not None:
            line.append(change.previous_version)
        if change.action == ROLLBACK and change.model_version in line:
            del line[line.index(change.model_version) + 1 :]
        elif line[-1:] != [change.model_version]:
            line.append(change.model_version)
    if line[-1:] == [present]:
        line.pop()
    # Else somebody set the alias in MLflow itself, and the last recorded version is the one before.
    return line[-1] if line else None


class Champions:
    """The versions of a dataset's model, and the alias ``champion``.

    Parameters
    ----------
    registry, lake, database
        Where versions, their directories, and the record of the alias's moves are.
    dataset
        The dataset's id.
    """

    def __init__(self, registry: ModelRegistry, lake: Lake, database: Database, dataset: str) -> None:
        self._registry = registry
        self._lake = lake
        self._database = database
        self._dataset = dataset

    def rows(self) -> list[dict[str, Any]]:
        """Return what there is to say about each version, the newest first.

        Returns
        -------
        list of dict
            ``version``, ``alias``, ``classifier``, figures of the validation and test part, each with its number of
            tracks, ``registered_at``, ``champion_since`` and ``changed_by`` (of the version that has the alias),
            ``feature_version`` and ``why``. What a version of before does not say is None.
        """
        aliases = self._registry.aliases(self._dataset)
        recorded = {change.model_version: change for change in changes(self._database, self._dataset)}
        return [self._row(version, aliases, recorded) for version in self._registry.versions(self._dataset)]

    def promote(self, version: int, *, why: str) -> ChampionChange:
        """Make a version the champion, because a person says so.

        Raises
        ------
        GenresError
            If there is no such version, it is the champion already, or it cannot be used.
        """
        return self._move(version, PROMOTE, why=why)

    def rollback(self, version: int | None = None, *, why: str) -> ChampionChange:
        """Make the version the champion that was it before.

        Parameters
        ----------
        version
            One that was champion before; None for the last one.

        Raises
        ------
        GenresError
            If no such version is known, or it cannot be used.
        """
        history = changes(self._database, self._dataset)
        if version is None:
            version = version_before(history, self._champion() or 0)
            if version is None:
                raise GenresError(
                    f"no champion of {self._registry.name_for(self._dataset)} before the present one is recorded: name "
                    "a version with `genres models promote`"
                )
        elif version not in {held for change in history for held in (change.model_version, change.previous_version)}:
            raise GenresError(
                f"version {version} of {self._registry.name_for(self._dataset)} is not recorded as a champion of "
                f"before: `genres models promote {version}` makes it one"
            )
        return self._move(version, ROLLBACK, why=why)

    def set_by_training(self, version: int, *, why: str, run_id: str) -> ChampionChange:
        """Make a version the champion that won against the present one."""
        return self._set(version, TRAINING, changed_by="champion_model", why=why, run_id=run_id)

    def _move(self, version: int, action: str, *, why: str) -> ChampionChange:
        model = self._registry.version(self._dataset, version)
        if self._champion() == version:
            raise GenresError(f"version {version} of {model.name} is the champion already")
        feature_set_of(model.feature_version)
        require_intact(model, self._lake)
        return self._set(version, action, changed_by=f"{getpass.getuser()}@{socket.gethostname()}", why=why)

    def _set(
        self, version: int, action: str, *, changed_by: str, why: str, run_id: str | None = None
    ) -> ChampionChange:
        aliases = self._registry.aliases(self._dataset)
        name, now = self._registry.name_for(self._dataset), datetime.now(UTC)
        change = ChampionChange(
            self._dataset, name, version, aliases.get("champion"), action, changed_by, why, run_id, now
        )
        # A stream that sees the record asks for the alias, which has to be set by then.
        self._registry.set_alias(self._dataset, "champion", version)
        with self._database.writing() as connection:
            connection.execute(sa.insert(tables.CHAMPION_CHANGES).values(change._asdict()))
        if aliases.get("challenger") == version:
            self._registry.drop_alias(self._dataset, "challenger")
        return change

    def _champion(self) -> int | None:
        return self._registry.aliases(self._dataset).get("champion")

    def _row(self, version: Any, aliases: dict[str, int], recorded: dict[int, ChampionChange]) -> dict[str, Any]:
        number = int(version.version)
        held = [alias for alias, holder in aliases.items() if holder == number]
        change = recorded.get(number) if "champion" in held else None
        row: dict[str, Any] = {
            "model_name": version.name,
            "version": number,
            "alias": ", ".join(sorted(held)),
            "registered_at": datetime.fromtimestamp(version.creation_timestamp / 1000, UTC),
            "champion_since": change and change.changed_at,
            "changed_by": change and change.changed_by,
        }
        try:
            facts: RegisteredModel | None = RegisteredModel.of(version)
            error = ""
        except GenresError as unreadable:  # registered by hand; the others are listed all the same
            facts, error = None, str(unreadable)
        row |= {name: facts and getattr(facts, name) for name in _LISTED}
        # Of who holds the alias the record says why, which for a person's change is the person's reason.
        return {**row, "why": (change and change.why) or (facts.why if facts else error)}
