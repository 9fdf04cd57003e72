"""Searches with Optuna from the command line."""

import json
import os
import re
import signal
from pathlib import Path

import optuna
import pytest
from helpers.commands import Sweep, results_files, sweep_folder
from helpers.event_files import hparams_row
from optuna.distributions import CategoricalDistribution, FloatDistribution

from pneumo.models.classifier import Classifier
from pneumo.runs.collection import collect


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("+callbacks.own", "{{_target_: os.system, command: 'touch {0}'}}"),
        ("optimizer._target_", "os.mkdir"),
    ],
)
def test_settings_from_an_edited_database_are_not_applied(
    name: str, value: str, sweep: Sweep, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = sweep_folder(tmp_path, "rates")
    folder.mkdir(parents=True)
    study = optuna.create_study(study_name="rates", storage=f"sqlite:///{folder / 'optuna.db'}")
    rate = FloatDistribution(0.001, 0.01)
    study.ask({"optimizer.lr": rate, name: CategoricalDistribution([value.format(tmp_path / "executed")])})
    options = ("model=xraychestnet", "optimizer=sgd", "epochs=1", "sweep.name=rates", "sweep.trials=1")
    assert sweep(*options, "optimizer.lr=interval(0.001,0.01)") == 1
    error = capsys.readouterr().err
    assert name in error
    assert "Traceback" not in error
    assert not (tmp_path / "executed").exists()
    assert not list(folder.glob("trial-*"))


@pytest.mark.slow
def test_a_stopped_search_resumes(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["experiment=search_optuna", "model=efficientnet_lite0", "optimizer=adam", "sweep.name=search"]
    options += ["data.val_fraction=0.3", "augment=none"]
    measure = Classifier.on_validation_epoch_end

    def stop(classifier: Classifier) -> None:
        measure(classifier)
        if len(results_files(sweep_folder(tmp_path, "search"))) == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "on_validation_epoch_end", stop)
        assert sweep(*options, "sweep.trials=3") == 143
    assert sorted(results_files(sweep_folder(tmp_path, "search"))) == ["trial-000"]
    capsys.readouterr()
    assert sweep(*options, "sweep.trials=3") == 0
    shown = capsys.readouterr().out
    assert "3 jobs: 2 done, 1 skipped, 0 failed" in shown
    results = {name: json.loads(text) for name, (_, text) in results_files(sweep_folder(tmp_path, "search")).items()}
    assert sorted(results) == ["trial-000", "trial-001", "trial-002"]
    assert all(run.trial for run in collect([sweep_folder(tmp_path, "search")]))
    rows = [hparams_row(sweep_folder(tmp_path, "search") / name) for name in sorted(results)]
    assert len({row["set/weight_decay"] for row in rows}) == 3
    best = min(results, key=lambda name: float(results[name]["val_loss"]))
    assert f"The best of 3 trials by validation is {best}" in shown
    assert re.search(r"python train\.py .*experiment=search_optuna .*optimizer\.lr=0\.\d+", shown)
    assert sweep(*options, "sweep.trials=3") == 0
    assert "3 jobs: 0 done, 3 skipped" in capsys.readouterr().out


@pytest.mark.slow
def test_a_search_continues_after_a_non_finite_loss_and_stops_at_other_failures(
    sweep: Sweep, tmp_path: Path, phantoms: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("model=xraychestnet", "optimizer=sgd", "epochs=1", "sweep.trials=2")
    assert sweep(*options, "sweep.name=nan", "optimizer.lr=interval(1e29,1e30)") == 1
    assert "2 jobs: 0 done, 0 skipped, 2 failed" in capsys.readouterr().out
    assert sweep(*options, "sweep.name=nan", "optimizer.lr=interval(1e29,1e30)") == 1
    assert "2 jobs: 0 done, 0 skipped, 2 failed" in capsys.readouterr().out
    missing = f"data.root={tmp_path / 'missing'}"
    assert sweep(*options, "sweep.name=data", "optimizer.lr=interval(0.001,0.01)", missing) == 1
    assert "1 jobs: 0 done, 0 skipped, 1 failed" in capsys.readouterr().out
    assert sweep(*options, "sweep.name=data", "optimizer.lr=interval(0.001,0.01)") == 0
    assert "2 jobs: 2 done, 0 skipped, 0 failed" in capsys.readouterr().out
    for change, word in (
        ("sweep.objective=val_auroc", "differs in: objective"),
        ("optimizer.lr=choice(0.1,0.2)", "differs in: space"),
        ("epochs=2", "differs in: settings"),
    ):
        more = ("sweep.trials=3", "optimizer.lr=interval(0.001,0.01)", change)
        assert sweep(*options, "sweep.name=data", *more) == 1
        error = capsys.readouterr().err
        assert word in error
        assert "another sweep.name" in error
