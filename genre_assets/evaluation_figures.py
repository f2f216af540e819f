"""``evaluation_figures``: the candidates side by side, as MLflow remembers them."""

from typing import TYPE_CHECKING, Any

import dagster as dg

from genres.store import ledger
from genres.store.database import Database
from genres_dagster.figures import draw_confusion, figure_metadata, new_figure
from genres_dagster.partitions import DATASETS, OWNERS, provenance
from genres_dagster.resources import MlflowResource

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COMPARED = ("valid_macro_f1", "valid_accuracy", "test_macro_f1", "test_accuracy")


@dg.asset(
    deps=["genre_classifiers"],
    group_name="models",
    kinds={"python", "matplotlib", "mlflow"},
    owners=OWNERS,
    partitions_def=DATASETS,
    # Where the daemon runs, figures follow what they show, also if that was materialized alone.
    automation_condition=dg.AutomationCondition.eager(),
    description="Metrics of the candidates side by side, their confusion on the test part, and F1 of each genre.",
)
def evaluation_figures(
    context: dg.AssetExecutionContext, database: dg.ResourceParam[Database], mlflow: MlflowResource
) -> dg.MaterializeResult:
    """Draw the figures from the newest finished training and log them to its MLflow run."""
    import numpy as np

    from spark.evaluation import metrics as evaluated

    database.check_migrated()
    dataset = ledger.registered_dataset(database, context.partition_key)
    registry = mlflow.open()
    parent = registry.latest_training(dataset.dataset)
    runs = registry.child_runs(parent)
    confusions = {run.info.run_name: registry.read_json(run, "confusion_test.json") for run in runs}
    genres = next(iter(confusions.values()))["genres"]
    metrics = {run.info.run_name: run.data.metrics for run in runs}
    by_genre = {
        name: evaluated(np.array(counts["confusion"]), genres, part="test") for name, counts in confusions.items()
    }
    data = provenance(dataset)
    figures = {
        "models": model_comparison(metrics, parent.data.metrics, data=data),
        "confusion_test": confusion_matrices(confusions, data=data),
        "f1_by_genre": f1_by_genre(by_genre, genres, data=data),
    }
    for name, figure in figures.items():
        registry.log_figure(parent, figure, f"{name}.png")
    return dg.MaterializeResult(
        metadata={
            "data": data,
            **{name: figure_metadata(figure) for name, figure in figures.items()},
            "mlflow_run": dg.MetadataValue.url(mlflow.run_url(parent)),
        }
    )


def model_comparison(metrics: dict[str, dict[str, float]], parent: dict[str, float], *, data: str) -> "Figure":
    """Draw macro-F1 and accuracy of each classifier as grouped bars, with the majority baseline.

    Parameters
    ----------
    metrics
        Metric values by classifier and name.
    parent
        Metrics of the parent run, with the baseline's.
    """
    import numpy as np

    clips = f"n = {parent['valid_rows']:.0f} validation, {parent['test_rows']:.0f} test clips"
    figure, axes = new_figure(10, 4.5, title=f"Models side by side ({clips})", data=data)
    places = np.arange(len(metrics))
    for number, name in enumerate(_COMPARED):
        heights = [values[name] for values in metrics.values()]
        bars = axes.bar(places + 0.2 * (number - 1.5), heights, 0.19, label=name, color=f"C{number}")
        axes.bar_label(bars, fmt="%.2f", fontsize=7)
    axes.axhline(
        parent["baseline_test_accuracy"], color="grey", linestyle="--", linewidth=1, label="majority baseline (test)"
    )
    axes.set_xticks(places, list(metrics), fontsize=8)
    axes.set_xlabel("classifier")
    axes.set_ylabel("macro-F1 and accuracy, from 0 to 1")
    axes.set_ylim(0, 1.05)
    axes.legend(fontsize=8, ncols=3)
    return figure


def confusion_matrices(confusions: dict[str, dict[str, Any]], *, data: str) -> "Figure":
    """Draw each classifier's confusion matrix on the test part."""
    import numpy as np

    columns = 3
    rows = -(-len(confusions) // columns)
    figure, axes = new_figure(
        4.8 * columns,
        4.6 * rows + 0.5,
        title=f"Confusion on the test part (n = {np.sum(next(iter(confusions.values()))['confusion'])})",
        data=data,
        nrows=rows,
        ncols=columns,
        squeeze=False,
    )
    for axis in axes.flat[len(confusions) :]:
        axis.set_axis_off()
    for axis, (classifier, counts) in zip(axes.flat, confusions.items(), strict=False):
        draw_confusion(axis, np.array(counts["confusion"]), counts["genres"])
        axis.set_title(classifier, fontsize=9)
    return figure


def f1_by_genre(metrics: dict[str, dict[str, float]], genres: list[str], *, data: str) -> "Figure":
    """Draw F1 on the test part by classifier and genre as a heat map."""
    import numpy as np

    from spark.evaluation import metric_key

    clips = next(iter(metrics.values()))["test_rows"]
    figure, axes = new_figure(9, 3.8, title=f"F1 of each genre on the test part (n = {clips:.0f})", data=data)
    values = np.array([[scores[f"test_f1_{metric_key(genre)}"] for genre in genres] for scores in metrics.values()])
    axes.imshow(values, cmap="Greens", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(genres)), genres, rotation=45, ha="right", fontsize=8)
    axes.set_yticks(range(len(metrics)), list(metrics), fontsize=8)
    axes.set_xlabel("genre")
    axes.set_ylabel("classifier")
    for (row, column), value in np.ndenumerate(values):
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=8, color="w" if value > 0.6 else "k")
    return figure
