"""How long training all candidates takes on the Connect server in several forms, from the first row to the last metric.

Run it from the project's folder: ``python benchmarks/training.py [FEATURES.csv [ROUNDS]]``. It starts a stack of its
own. The file is a table like the published GTZAN one (``features_30_sec.csv``); without it a synthetic table of the
same shape is made. Every round trains in each form once, in a process and a session of its own; the first round, in
which the server compiles, is not counted. Prints a Markdown table of medians and ranges.
"""

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from own_stack import own_stack

ROUNDS = 3
FORMS = {
    "whole pipelines": "each candidate assembles and standardises for itself, as `fit_pipeline` does",
    "prepared": "assembled and standardised once for all candidates",
    "prepared, interpreted": "the same, with the session set to `TRAINING_CONF`",
    "prepared, interpreted, two at a time": "and two candidates in training at a time, as `genre_classifiers` does",
}


def main() -> None:
    """Train in every form, in turns, and print the table; or, called by itself, train in one form."""
    if sys.argv[1:2] == ["--form"]:
        print(json.dumps(train(sys.argv[2], sys.argv[3])))
        return
    features = sys.argv[1] if len(sys.argv) > 1 else ""
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else ROUNDS
    if features and not Path(features).is_file():
        sys.exit(f"there is no file {features}: name a table of features, or '' for a synthetic one")
    measured: dict[str, list[dict[str, Any]]] = {form: [] for form in FORMS}
    with own_stack():
        for number in range(rounds + 1):
            for form in FORMS:
                command = [sys.executable, __file__, "--form", form, features]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode:
                    sys.exit(f"training in the form '{form}' failed:\n{done.stderr[-2000:]}")
                run = json.loads(done.stdout.splitlines()[-1])
                print(number, form, run["seconds"], file=sys.stderr)
                if number:
                    measured[form].append(run)

    first = next(iter(measured.values()))
    print(f"{'table ' + Path(features).name if features else 'synthetic table'}, {rounds} rounds in turns; seconds\n")
    for form, what in FORMS.items():
        print(f"- {form}: {what}")
    print()
    parts = list(first[0]["seconds"])
    print(f"| form | {' | '.join(parts)} | all (range) | ratio to the first (range) | largest change of a metric |")
    print("|---" * (len(parts) + 4) + "|")
    for form, runs in measured.items():
        cells = [f"{median(run['seconds'][part] for run in runs):.1f}" for part in parts]
        totals = [run["seconds"]["data"] + run["seconds"]["training"] for run in runs]
        firsts = [run["seconds"]["data"] + run["seconds"]["training"] for run in first]
        ratios = [total / other for total, other in zip(totals, firsts, strict=True)]
        change = max(
            abs(run["macro_f1"][name] - first[0]["macro_f1"][name]) for run in runs for name in first[0]["macro_f1"]
        )
        cells += [f"{median(totals):.1f} ({min(totals):.1f}-{max(totals):.1f})"]
        cells += [f"{median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})", f"{change:.1g}"]
        print(f"| {form} | {' | '.join(cells)} |")
    print("\n*server CPU* is the processor time of the Connect server, which others on the machine do not change.")


def train(form: str, features: str) -> dict[str, Any]:
    """Train every candidate in one form; return the seconds of each part and the macro-F1 on the other rows."""
    from pyspark.util import inheritable_thread_target

    from genres.audio.gtzan57 import GTZAN57
    from genres.settings import Settings
    from local_stack.stack import status
    from spark.classifiers import TRAINING_CONF, Candidate, choose, fit_pipeline, index_genres, prepare
    from spark.evaluation import collect_answers, metrics
    from spark.session import open_session, session_config

    settings = Settings()
    candidates = choose([])
    columns, seconds, macro_f1, took = GTZAN57.columns, {}, {}, {}
    server = psutil.Process(next(row.pid for row in status(settings) if row.service == "spark-connect"))
    spark = open_session(session_config(settings, app_name="training benchmark"))
    spark.conf.set("spark.sql.shuffle.partitions", TRAINING_CONF["spark.sql.shuffle.partitions"])
    if "interpreted" in form:
        for name, value in TRAINING_CONF.items():
            spark.conf.set(name, value)
    began, busy = time.perf_counter(), sum(server.cpu_times()[:2])
    rows = spark.createDataFrame(table(features, columns)).localCheckpoint()
    indexed, genres = index_genres(rows)
    whole = form == "whole pipelines"
    if whole:
        learnt, judged = (
            indexed.filter(which).coalesce(1).localCheckpoint() for which in ("part = 'train'", "part != 'train'")
        )
    else:
        prepared = prepare(indexed, columns=columns, genres=genres)
        judged = prepared.judged
    seconds["data"] = time.perf_counter() - began

    def one(candidate: Candidate) -> None:
        began = time.perf_counter()
        if whole:
            model = fit_pipeline(candidate, learnt, columns=columns, genres=genres)
        else:
            _, model = prepared.fit(candidate)
        _, answers, _ = collect_answers(
            model.transform(judged.filter("part = 'valid'")),
            gives_probability=candidate.gives_probability,
            n_genres=len(genres),
            keep="part",
        )
        macro_f1[candidate.name] = metrics(answers.confusion(), genres, part="valid")["valid_macro_f1"]
        took[candidate.name] = time.perf_counter() - began

    began = time.perf_counter()
    with ThreadPoolExecutor(2 if "two at a time" in form else 1) as pool:
        list(pool.map(inheritable_thread_target(spark)(one), candidates))
    seconds["training"] = time.perf_counter() - began
    seconds["server CPU"] = sum(server.cpu_times()[:2]) - busy
    seconds |= {candidate.name: took[candidate.name] for candidate in candidates}
    if not whole:
        del prepared  # its fitted stages, held over a Connect session, keep the process from ending
    spark.stop()
    return {"seconds": {name: round(value, 2) for name, value in seconds.items()}, "macro_f1": macro_f1}


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
