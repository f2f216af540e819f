"""``feature_figures``: what the clips and their features look like, in the UI and in MLflow."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import dagster as dg

from genres.audio.feature_sets import feature_sets_named
from genres.store import ledger
from genres.store.batch_tables import BatchTables
from genres.store.database import Database
from genres_dagster.figures import figure_metadata, new_figure
from genres_dagster.partitions import DATASETS, OWNERS, provenance
from genres_dagster.resources import LakeResource, MlflowResource

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_RATE = 22_050
"""Samples per second of the spectrograms, in Hz, whatever the features are computed at."""
_UNITS = {
    **dict.fromkeys(("spectral_centroid", "spectral_bandwidth", "rolloff"), "Hz"),
    **dict.fromkeys(("mfcc", "spectral_contrast", "onset_strength"), "dB"),
    **dict.fromkeys(("tempo", "beat_tempo"), "beats per minute"),
    "tag_": "probability",
}
"""What features are measured in, by how their names begin; the sets' docstrings say so."""


@dg.asset(
    deps=["audio_features"],
    group_name="features",
    kinds={"python", "matplotlib"},
    owners=OWNERS,
    partitions_def=DATASETS,
    # Where the daemon runs, figures follow what they show, also if that was materialized alone.
    automation_condition=dg.AutomationCondition.eager(),
    description="Mel spectrogram of a clip of each genre, feature distributions by genre, correlations and a PCA.",
)
def feature_figures(
    context: dg.AssetExecutionContext,
    lake: LakeResource,
    database: dg.ResourceParam[Database],
    mlflow: MlflowResource,
) -> dg.MaterializeResult:
    """Draw the figures, log them to MLflow and show them here."""
    database.check_migrated()
    dataset = ledger.registered_dataset(database, context.partition_key)
    tables = BatchTables(lake.open(), database, dataset.dataset)
    registry = mlflow.open()
    feature_set = feature_sets_named(dataset.feature_sets)
    features = tables.features(feature_set.feature_version)
    data = provenance(dataset)
    figures = {
        "mel_spectrograms": mel_spectrograms(_one_clip_a_genre(tables), data=data),
        "feature_distributions": feature_distributions(features, feature_set.shown, data=data),
        "feature_correlations": feature_correlations(features[list(feature_set.columns)], data=data),
        "feature_pca": feature_pca(features[list(feature_set.columns)], features["genre"], data=data),
    }
    tags = {"data": data, "dagster_run_id": context.run_id}
    with registry.run(dataset.dataset, run_name="feature figures", stage="feature_figures", tags=tags) as run:
        for name, figure in figures.items():
            registry.log_figure(run, figure, f"{name}.png")
    return dg.MaterializeResult(
        metadata={
            "data": data,
            **{name: figure_metadata(figure) for name, figure in figures.items()},
            "mlflow_run": dg.MetadataValue.url(mlflow.run_url(run)),
        }
    )


def mel_spectrograms(clips: dict[str, bytes], *, data: str) -> "Figure":
    """Draw a mel spectrogram for each genre.

    Parameters
    ----------
    clips
        Bytes of a clip by genre; up to 12 genres are drawn.
    """
    from genres.audio.decode import decode
    from genres.audio.mel_spectrogram import HOP, band_hz, mel_spectrogram

    genres = sorted(clips)[:12]
    columns = min(len(genres), 5)
    rows = -(-len(genres) // columns)
    title = f"Mel spectrogram of the first 10 s of a clip of each genre (n = {len(genres)} clips)"
    figure, axes = new_figure(
        2.6 * columns + 1, 2.2 * rows + 0.8, title=title, data=data, nrows=rows, ncols=columns, squeeze=False
    )
    for axis in axes.flat[len(genres) :]:
        axis.set_axis_off()
    hertz = band_hz(_RATE)
    marks = range(0, len(hertz), 32)
    for axis, genre in zip(axes.flat, genres, strict=False):
        samples = decode(clips[genre], sample_rate=_RATE)[: 10 * _RATE]
        bands = mel_spectrogram(samples, _RATE)
        size = (0, bands.shape[1] * HOP / _RATE, 0, len(bands))
        picture = axis.imshow(
            bands, origin="lower", aspect="auto", cmap="magma", vmin=-80, vmax=0, extent=size, interpolation="nearest"
        )
        axis.set_yticks(list(marks), [f"{hertz[mark]:,.0f}" for mark in marks])
        axis.tick_params(labelsize=7)
        axis.set_xlabel("s", fontsize=7)
        axis.set_ylabel("Hz", fontsize=7)
        axis.set_title(genre, fontsize=9, parse_math=False)
    figure.colorbar(picture, ax=axes, label="dB, 0 is the clip's loudest")
    return figure


def feature_distributions(features: "pd.DataFrame", columns: Sequence[str], *, data: str) -> "Figure":
    """Draw box plots by genre of up to six columns."""
    rows = -(-len(columns) // 3)
    title = f"Features by genre (n = {len(features)} tracks)"
    figure, axes = new_figure(12, 3.25 * rows, title=title, data=data, nrows=rows, ncols=3, squeeze=False)
    groups = dict(list(features.groupby("genre")))
    for axis in axes.flat[len(columns) :]:
        axis.set_axis_off()
    for axis, column in zip(axes.flat, columns, strict=False):
        axis.boxplot([group[column] for group in groups.values()], tick_labels=list(groups), showfliers=False)
        axis.set_title(column, fontsize=9)
        axis.tick_params(axis="x", rotation=60, labelsize=8)
        axis.tick_params(axis="y", labelsize=8)
        axis.set_xlabel("genre", fontsize=8)
        axis.set_ylabel(_unit(column), fontsize=8)
    return figure


def feature_correlations(features: "pd.DataFrame", *, data: str) -> "Figure":
    """Draw the Pearson correlations of all columns as a heat map."""
    columns = list(features.columns)
    figure, axes = new_figure(9, 8.2, title=f"Correlation of the features (n = {len(features)} tracks)", data=data)
    picture = axes.imshow(features.corr().fillna(0).to_numpy(), cmap="RdBu_r", vmin=-1, vmax=1)
    every = -(-len(columns) // 60)  # more names than that would lie over each other
    axes.set_xticks(range(0, len(columns), every), columns[::every], rotation=90, fontsize=6)
    axes.set_yticks(range(0, len(columns), every), columns[::every], fontsize=6)
    axes.set_xlabel("feature")
    axes.set_ylabel("feature")
    figure.colorbar(picture, ax=axes, shrink=0.7, label="Pearson's correlation")
    return figure


def feature_pca(features: "pd.DataFrame", genres: "pd.Series", *, data: str) -> "Figure":
    """Draw the tracks on the first two principal components of the standardised features."""
    import numpy as np

    values = features.to_numpy(dtype=float)
    spread = values.std(axis=0)
    standardised = (values - values.mean(axis=0)) / np.where(spread > 0, spread, 1)
    # The right singular vectors of the standardised table are its principal axes.
    left, strengths, _ = np.linalg.svd(standardised, full_matrices=False)
    places = left * strengths
    shares = strengths**2 / max((strengths**2).sum(), np.finfo(float).tiny)
    title = f"Tracks on two principal components (n = {len(features)} tracks)"
    figure, axes = new_figure(7.5, 6, title=title, data=data)
    for number, (genre, rows) in enumerate(features.groupby(genres).indices.items()):
        axes.scatter(places[rows, 0], places[rows, 1], s=18, label=genre, color=f"C{number % 10}", alpha=0.8)
    axes.set_xlabel(f"first component ({shares[0]:.0%} of the variance)")
    axes.set_ylabel(f"second component ({shares[1]:.0%})")
    axes.legend(fontsize=8, ncols=2)
    return figure


def _unit(column: str) -> str:
    """Return the unit of a feature's axis; what is none of these has no unit."""
    unit = next((unit for start, unit in _UNITS.items() if column.startswith(start)), "")
    return f"{unit}²" if unit and column.endswith("_var") else unit or "no unit"


def _one_clip_a_genre(tables: BatchTables) -> dict[str, bytes]:
    chosen = tables.accepted().groupby("genre").first()
    return {str(genre): tables.lake.files.cat_file(path) for genre, path in chosen["path"].items()}
