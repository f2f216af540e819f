"""How light the ``genres`` command starts, and that its list of commands can be read."""

import subprocess
import sys

NOT_FOR_HELP = ("dagster", "mlflow", "numpy", "pandas", "psutil", "pydantic", "pyspark", "rich", "sqlalchemy", "typer")


def test_help_loads_next_to_nothing() -> None:
    program = (
        "import sys\n"
        "from genres_cli.main import main\n"
        "sys.argv = ['genres', '--help']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        f"print([name for name in {NOT_FOR_HELP!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    commands = done.stdout.split("Commands:\n")[1].splitlines()
    names = ["up", "down", "status", "demo", "load", "datasets", "retrain"]
    names += [
        "features",
        "predict",
        "evaluate",
        "predictions",
        "watch",
        "drain",
        "quarantine",
        "losses",
        "stream",
        "models",
        "page",
        "report",
        "metrics",
        "ui",
    ]
    assert [line.split()[0] for line in commands] == names
    assert not [line for line in commands if line.endswith("...")], "a sentence is cut short"
