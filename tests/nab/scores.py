"""Scores of `vidente backtest --split 0` for every file of NAB, as results of a detector `vidente`.

NAB's times have no zone and are taken as UTC. Some files hold times that repeat or step back (clocks
set back, mostly); the daemon refuses a reading that is not newer than the last, so such a row is left
out and gets the score of the reading that was kept before it. The first row has no forecast: 0.
"""

import csv
import subprocess
import sys
import tempfile
from pathlib import Path


def scores(vidente, rows):
    """A score for each row (time, value) of one file."""
    kept = []
    for at, (time, value) in enumerate(rows):
        time = time.replace(" ", "T") + "Z"
        if not kept or time > kept[-1][1]:
            kept.append((at, time, value))
    with tempfile.TemporaryDirectory() as folder:
        source, result = Path(folder, "in.csv"), Path(folder, "out.csv")
        with source.open("w", newline="") as file:
            out = csv.writer(file)
            out.writerow(["series", "timestamp", "value"])
            out.writerows(["nab", time, value] for _, time, value in kept)
        command = [vidente, "backtest", "--split", "0", "--input", source, "--output", result]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"vidente backtest failed: {done.stderr}")
        with result.open(newline="") as file:
            forecast = {row["timestamp"]: row["score"] for row in csv.DictReader(file)}
    known = {at: forecast.get(time, "0") for at, time, _ in kept}
    last, every = "0", []
    for at in range(len(rows)):
        last = known.get(at, last)
        every.append(last)
    return every


def main(vidente, nab):
    files = sorted(Path(nab, "data").glob("*/*.csv"))
    for file in files:
        with file.open(newline="") as source:
            header, *rows = csv.reader(source)
        folder = Path(nab, "results", "vidente", file.parent.name)
        folder.mkdir(parents=True, exist_ok=True)
        with Path(folder, f"vidente_{file.name}").open("w", newline="") as target:
            out = csv.writer(target)
            out.writerow([*header, "anomaly_score"])
            out.writerows([*row, score] for row, score in zip(rows, scores(vidente, rows)))
    print(f"{len(files)} files scored", file=sys.stderr)


if __name__ == "__main__":
    main(*sys.argv[1:])
