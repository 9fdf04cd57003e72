"""A metric added to the registry by one entry, through a complete run and its reports."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.commands import ROOT

TITLE = "NPV"
CODE = f"""
import runpy, sys
from pathlib import Path
from pneumo.metrics.confusion import divide
from pneumo.metrics.estimation import Metric, percentile_interval
from pneumo.metrics.definitions import METRICS

def npv(resamples):
    return divide(resamples.tables[:, 0, 0], resamples.tables[:, :, 0].sum(axis=1))

METRICS["npv"] = Metric("npv", "{TITLE}", npv, percentile_interval, rank=2)
if sys.argv[1] == "train.py":
    sys.argv.pop(0)
    runpy.run_path("train.py", run_name="__main__")
else:
    from pneumo.cli.commands import report
    from pneumo.reporting.run_report import Explanations, read_run, write_model_card, write_run_page
    run, out = Path(sys.argv[1]), Path(sys.argv[2])
    report(list(map(Path, sys.argv[3:])), out)
    write_run_page(read_run(run), Explanations({{}}, {{}}, "no maps", None, None), out / "page.html")
    write_model_card(run, out)
"""


def execute(*arguments: str) -> str:
    command, wide = [sys.executable, "-c", CODE, *arguments], {**os.environ, "COLUMNS": "400"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=wide)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_new_registry_entry_is_in_results_tables_leaderboard_and_report(tmp_path: Path) -> None:
    run, old, out = (tmp_path / name for name in ("new-sgd-s0", "old-sgd-s0", "out"))
    data = ("data=synthetic", "data.train=40", "data.val=8", "data.test=16", "data.image_size=32", "data.batch_size=16")
    quick = ("model=xraychestnet", "epochs=1", "trainer=cpu", "data.num_workers=0", "figures=false")
    folders = (f"paths.output_dir={tmp_path}", f"hydra.run.dir={run}")
    assert TITLE in execute("train.py", *data, *quick, *folders, "callbacks.best.monitor=val/npv")
    results = json.loads((run / "results.json").read_text())
    negatives = results["test_true_negatives"], results["test_false_negatives"]
    assert results["test_npv"] == pytest.approx(negatives[0] / max(1, sum(negatives)))
    assert 0 <= results["test_npv_ci_low"] <= results["test_npv"] <= results["test_npv_ci_high"] <= 1
    assert {"train_npv", "val_npv"} <= results.keys()

    shutil.copytree(run, old)  # a run of an earlier version
    others = {name: value for name, value in results.items() if "npv" not in name}
    (old / "results.json").write_text(json.dumps({**others, "model": "old"}))
    assert TITLE in execute(str(run), str(out), str(run), str(old))
    assert TITLE in (out / "leaderboard.md").read_text()
    assert TITLE in (out / "page.html").read_text()
    assert TITLE in (out / "MODEL_CARD.md").read_text()
    with (out / "leaderboard.csv").open(newline="") as file:
        values = {line["model"]: line["test_npv"] for line in csv.DictReader(file)}
    assert float(values.pop("xraychestnet")) == pytest.approx(results["test_npv"])
    assert values == {"old": ""}
