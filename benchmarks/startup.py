"""How long the code locations take to load beside ``import dagster``, and ``genres --help`` beside bare Python.

Run it from the project's folder: ``python benchmarks/startup.py [ROUNDS]``. In each round every command runs once, in
a process of its own, so that a busy machine slows all of them; prints a Markdown table of medians and ranges.
"""

import subprocess
import sys
import time
from statistics import median

ROUNDS = 15
COMMANDS = {
    "bare Python": ["-c", "pass"],
    "`genres --help`": ["-m", "genres_cli", "--help"],
    "`import dagster`": ["-c", "import dagster"],
    "`import genre_assets.definitions`": ["-c", "import genre_assets.definitions"],
    "`import streaming_sensors.definitions`": ["-c", "import streaming_sensors.definitions"],
}
BESIDE = {
    "`genres --help`": "bare Python",
    "`import genre_assets.definitions`": "`import dagster`",
    "`import streaming_sensors.definitions`": "`import dagster`",
}


def main() -> None:
    """Run the commands in turns and print the table."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    for command in COMMANDS.values():  # once for the bytecode and the file cache
        run(command)
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(rounds):
        for name, command in COMMANDS.items():
            seconds[name].append(run(command))
    print(f"{rounds} rounds in turns\n")
    print("| what | seconds, median (range) | beside | ratio, median (range) |")
    print("|---|---|---|---|")
    for name, taken in seconds.items():
        other = BESIDE.get(name, "")
        ratios = [mine / its for mine, its in zip(taken, seconds.get(other, []), strict=False)]
        ratio = f"{median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})" if ratios else ""
        print(f"| {name} | {median(taken):.3f} ({min(taken):.3f}-{max(taken):.3f}) | {other} | {ratio} |")


def run(arguments: list[str]) -> float:
    """Run Python with these arguments; give the seconds."""
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
