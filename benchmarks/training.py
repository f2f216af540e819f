"""How long training all candidates takes in several forms, from opening the session to the last metric.

Run it from the project's folder: ``python benchmarks/training.py [FEATURES.csv [ROUNDS]]``. The file is a table like
the published GTZAN one (``features_30_sec.csv``); without it a synthetic table of the same shape is made. Every round
trains in each form once, in a process and a JVM of its own; prints a Markdown table of medians and ranges.
"""

import json
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

from py4j.protocol import Py4JJavaError

ROUNDS = 3
FORMS = {
    "whole pipelines": "each candidate assembles and standardises again, as `pipeline` does",
    "prepared": "assembled and standardised once for all candidates",
    "prepared, two at a time": "the same, two candidates in training at a time, as `genre_classifiers` does",
    "prepared, two at a time, C1": "the same with `-XX:TieredStopAtLevel=1`",
}


def main() -> None:
    """Train in every form, in turns, and print the table; or, called by itself, train in one form."""
    if sys.argv[1:2] == ["--form"]:
        print(json.dumps(train(sys.argv[2], sys.argv[3])))
        return
    features = sys.argv[1] if len(sys.argv) > 1 else ""
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else ROUNDS
    found: dict[str, list[dict[str, Any]]] = {form: [] for form in FORMS}
    for _ in range(rounds):
        for form in FORMS:
            command = [sys.executable, __file__, "--form", form, features]
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
            found[form].append(json.loads(done.stdout.splitlines()[-1]))
            print(form, found[form][-1]["seconds"], file=sys.stderr)

    first = next(iter(found.values()))
    print(f"{'table ' + Path(features).name if features else 'synthetic table'}, {rounds} rounds in turns; seconds\n")
    for form, what in FORMS.items():
        print(f"- {form}: {what}")
    print()
    parts = list(first[0]["seconds"])
    stages = ("session", "data", "training")
    print(f"| form | {' | '.join(parts)} | all (range) | ratio to the first (range) | largest change of a metric |")
    print("|---" * (len(parts) + 4) + "|")
    for form, runs in found.items():
        cells = [f"{median(run['seconds'][part] for run in runs):.1f}" for part in parts]
        totals = [sum(run["seconds"][part] for part in stages) for run in runs]
        firsts = [sum(run["seconds"][part] for part in stages) for run in first]
        ratios = [total / other for total, other in zip(totals, firsts, strict=True)]
        change = max(
            abs(run["macro_f1"][name] - first[0]["macro_f1"][name]) for run in runs for name in first[0]["macro_f1"]
        )
        cells += [f"{median(totals):.1f} ({min(totals):.1f}-{max(totals):.1f})"]
        cells += [f"{median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})", f"{change:.1g}"]
        print(f"| {form} | {' | '.join(cells)} |")
    print(f"\nBLAS: {first[0]['blas']}")


def train(form: str, features: str) -> dict[str, Any]:
    """Train every candidate in one form; give the seconds of each part and the macro-F1 on the other rows."""
    from genres.audio.gtzan57 import GTZAN57
    from genres.settings import Settings
    from spark.classifiers import candidates, index_genres, pipeline, prepare
    from spark.evaluation import confusion_matrix, metrics
    from spark.session import open_session, session_config

    columns, seconds, macro_f1, took = GTZAN57.columns, {}, {}, {}
    with tempfile.TemporaryDirectory() as folder:
        config = session_config(Settings(state_dir=Path(folder)), app_name="training benchmark")
        del config["spark.hadoop.fs.defaultFS"]
        if "C1" in form:
            config["spark.driver.extraJavaOptions"] += " -XX:TieredStopAtLevel=1"
        began = time.perf_counter()
        spark = open_session(config)
        seconds["session"] = time.perf_counter() - began

        began = time.perf_counter()
        rows = spark.createDataFrame(table(features, columns)).localCheckpoint()
        indexed, genres = index_genres(rows)
        parts = {part: indexed.filter(indexed.part == part).coalesce(1) for part in ("train", "valid")}
        whole = form == "whole pipelines"
        if whole:
            parts = {part: rows.localCheckpoint() for part, rows in parts.items()}
        else:
            prepared = prepare(parts, columns=columns, genres=genres)
            parts = prepared.parts
        seconds["data"] = time.perf_counter() - began

        def one(candidate: Any) -> None:
            began = time.perf_counter()
            if whole:
                model = pipeline(candidate, columns=columns, genres=genres).fit(parts["train"])
            else:
                _, model = prepared.fit(candidate)
            confusion = confusion_matrix(model.transform(parts["valid"]), genres)
            macro_f1[candidate.name] = metrics(confusion, genres, part="valid")["valid_macro_f1"]
            took[candidate.name] = time.perf_counter() - began

        began = time.perf_counter()
        with ThreadPoolExecutor(2 if "two at a time" in form else 1) as pool:
            list(pool.map(one, candidates()))
        seconds["training"] = time.perf_counter() - began
        seconds |= {candidate.name: took[candidate.name] for candidate in candidates()}
        blas = blas_of(spark)
        spark.stop()
    rounded = {name: round(value, 2) for name, value in seconds.items()}
    return {"seconds": rounded, "macro_f1": macro_f1, "blas": blas}


def blas_of(spark: Any) -> str:
    """Name the implementations of BLAS that Spark has found: one of Java, and the machine's own, if it has one."""
    found = spark._jvm.dev.ludovic.netlib.blas
    java = found.JavaBLAS.getInstance().getClass().getSimpleName()
    try:
        native = found.NativeBLAS.getInstance().getClass().getSimpleName()
    except Py4JJavaError:  # it has none
        native = "none"
    return f"{java} (Java), {native} (native)"


def table(features: str, columns: tuple[str, ...]) -> Any:
    """Read or make the table: the feature columns, ``genre`` and ``part``, a third of the rows kept from training."""
    import numpy as np
    import pandas as pd

    if features:
        rows = pd.read_csv(features)
        rows["genre"] = rows["filename"].str.split(".").str[0]
    else:
        random, genres = np.random.default_rng(0), [f"genre {number}" for number in range(10)]
        centres = random.normal(size=(10, len(columns)))
        label = np.repeat(range(10), 64)
        rows = pd.DataFrame(centres[label] + 2 * random.normal(size=(640, len(columns))), columns=list(columns))
        rows["genre"] = [genres[number] for number in label]
    rows["part"] = ["valid" if number % 3 == 0 else "train" for number in range(len(rows))]
    return rows[["genre", "part", *columns]]


if __name__ == "__main__":
    main()
