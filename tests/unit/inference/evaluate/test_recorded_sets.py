import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.adaptation import adapt_checkpoint
from helpers.checkpoints import SUBTYPES, write_untrained
from helpers.commands import Run, command_runner
from helpers.labelled_site import write_site
from helpers.run_files import RESULTS, write_run

from pneumo.data.labelled_images import read_labelled
from pneumo.inference.evaluate.recorded_sets import find_own_run
from pneumo.metrics.predictions import Predictions
from pneumo.metrics.summary import count_outcomes
from pneumo.models.checkpoint_reader import DIGEST, read_checkpoint
from pneumo.models.checkpoint_writer import save_checkpoint
from pneumo.reporting.leaderboard import write_leaderboard
from pneumo.runs.external_tests import read_external_tests
from pneumo.runs.prediction_files import read_table, write_predictions
from pneumo.runs.results import write_results


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_untrained(tmp_path_factory.mktemp("network") / "best.ckpt", "pneumo/xraychestnet", 32)


@pytest.fixture
def best(network: Path, tmp_path: Path) -> Path:
    """The best checkpoint of a finished run."""
    folder = tmp_path / "sweep" / "resnext-sgd-s0"
    write_run(folder, "resnext", "sgd", 0, wrong=30, threshold=0.5)
    (folder / "checkpoints").mkdir()
    return Path(shutil.copy(network, folder / "checkpoints"))


@pytest.fixture
def evaluate(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return command_runner("evaluate", monkeypatch, capsys)


def test_the_record_has_the_metrics_of_the_evaluation(best: Path, site: Path, tmp_path: Path, evaluate: Run) -> None:
    status, out, _ = evaluate(best, site, "--record", "--json", tmp_path / "x.json")
    assert status == 0
    run = best.parents[1]
    assert f"Wrote {run / 'external'}" in out
    (test,), ignored = read_external_tests(run)
    assert not ignored
    content = json.loads((tmp_path / "x.json").read_text())
    assert (test.name, test.images, test.patients) == (content["data"], content["images"], content["patients"])
    assert (test.split, test.threshold, test.checkpoint_hash) == ("test", 0.4, read_checkpoint(best)[DIGEST])
    for name, estimate in test.metrics.items():
        assert list(estimate) == [content[name], content[f"{name}_ci_low"], content[f"{name}_ci_high"]]
    assert set(test.predictions.paths) == {path.name for path in site.parent.glob("*.png")}


def test_without_the_option_nothing_is_recorded(best: Path, tmp_path: Path, evaluate: Run) -> None:
    assert evaluate(best, write_site(tmp_path / "scans", 12))[0] == 0
    assert not (best.parents[1] / "external").exists()


def test_each_set_has_its_own_record(best: Path, tmp_path: Path, evaluate: Run) -> None:
    first, second = write_site(tmp_path / "a", 24, 1), write_site(tmp_path / "b", 30, 2)
    (tmp_path / "b" / "003.png").write_bytes(b"unreadable")
    assert evaluate(best, "--labels", first, "--labels", second, "--record")[0] == 0
    together = {test.name: test for test in read_external_tests(best.parents[1])[0]}
    assert {name: test.images for name, test in together.items()} == {"a": 24, "b": 29}
    assert evaluate(best, second, "--record")[0] == 0
    alone = next(test for test in read_external_tests(best.parents[1])[0] if test.name == "b")
    assert alone.predictions.paths == together["b"].predictions.paths
    assert alone.metrics == together["b"].metrics
    with (tmp_path / "b" / "labels.csv").open(newline="") as file:
        label = {row["file"]: row["label"] for row in csv.DictReader(file)}
    classes = alone.predictions.classes
    assert [label[path] for path in alone.predictions.paths] == [classes[k] for k in alone.predictions.label]


def test_a_record_of_other_images_is_replaced_with_a_message(best: Path, tmp_path: Path, evaluate: Run) -> None:
    for images, replaces in ((24, False), (24, False), (30, True)):
        shutil.rmtree(tmp_path / "scans", ignore_errors=True)
        _, out, _ = evaluate(best, write_site(tmp_path / "scans", images), "--record")
        assert ("Replacing the record of scans" in out) == replaces
    ((test,), _) = read_external_tests(best.parents[1])
    assert test.images == 30


def test_a_network_of_three_classes_is_recorded(tmp_path: Path, evaluate: Run) -> None:
    run = tmp_path / "vgg16-sgd-s0"
    best = write_untrained(run / "checkpoints" / "best.ckpt", "pneumo/xraychestnet", 32, classes=3)
    label = np.arange(30) % 3
    probability = np.full((30, 3), 0.1) + 0.7 * np.eye(3)[label]
    predictions = Predictions(probability, label, label, SUBTYPES, None, tuple(map(str, range(30))))
    write_predictions(run / "predictions.csv", predictions)
    write_results(run / "results.json", {**RESULTS, "task": "multiclass", **count_outcomes(label, label)})
    table = write_site(tmp_path / "scans", 30, classes=SUBTYPES)
    assert evaluate(best, table, "--record", "--json", tmp_path / "x.json")[0] == 0
    ((test,), ignored) = read_external_tests(run)
    assert not ignored
    content = json.loads((tmp_path / "x.json").read_text())
    assert (test.threshold, test.predictions.classes) == (None, SUBTYPES)
    assert {name: estimate.value for name, estimate in test.metrics.items()} == {
        name: content[name] for name in ("auroc", "balanced_accuracy", "sensitivity", "specificity", "accuracy")
    }


def test_one_class_only_is_recorded_without_auroc(best: Path, tmp_path: Path, evaluate: Run) -> None:
    table = write_site(tmp_path / "ward", 12)
    table.write_text(table.read_text().replace("NORMAL", "PNEUMONIA"))
    assert evaluate(best, table, "--record")[0] == 0
    ((test,), _) = read_external_tests(best.parents[1])
    assert test.metrics.keys() == {"sensitivity", "accuracy"}


def store_internal_test(checkpoint: Path, sign: int) -> None:
    """Store the test of the run in its checkpoint; with a negative sign, that of another network."""
    table = read_table(checkpoint.parents[1] / "predictions.csv")
    label = torch.tensor([name == "PNEUMONIA" for name in table.label]).long()
    logit = torch.from_numpy(table.probability).logit().float() * sign
    internal = {"margin": logit, "label": label, "patient": torch.arange(len(label))}
    save_checkpoint({**read_checkpoint(checkpoint), "internal_test": internal}, checkpoint)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_internal_test_identifies_the_run(sign: int, best: Path, tmp_path: Path, evaluate: Run) -> None:
    store_internal_test(best, sign)
    status, _, err = evaluate(best, write_site(tmp_path / "scans", 12), "--record")
    assert status == (sign < 0)
    assert ("other weights" in err) == (sign < 0)
    assert len(read_external_tests(best.parents[1])[0]) == (sign > 0)


def test_an_adapted_checkpoint_is_rejected(best: Path, tmp_path: Path, evaluate: Run) -> None:
    table = write_site(tmp_path / "scans", 60)
    exchanged = {"NORMAL": "PNEUMONIA", "PNEUMONIA": "NORMAL"}  # the random network ranks the images inversely
    table.write_text(re.sub("|".join(exchanged), lambda match: exchanged[match[0]], table.read_text()))
    adapt_checkpoint(best, read_labelled(table), tmp_path / "adapted.ckpt")
    shutil.copy(tmp_path / "adapted.ckpt", best)
    status, _, err = evaluate(best, table, "--record")
    assert status == 1
    assert "adapted" in err


def move(best: Path, *parts: str) -> Path:
    target = best.parents[2].joinpath(*parts)
    target.parent.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copy(best, target))


@pytest.mark.parametrize(
    ("parts", "named"),
    [
        (("best.ckpt",), "another file"),
        (("resnext-sgd-s0", "checkpoints", "last.ckpt"), "another file"),
        (("resnext-sgd-s0", "checkpoints", "best.onnx"), "exported file"),
        (("unfinished", "checkpoints", "best.ckpt"), "no results.json"),
    ],
)
def test_other_networks_are_rejected(parts: tuple[str, ...], named: str, best: Path, site: Path, evaluate: Run) -> None:
    path = move(best, *parts)
    status, _, err = evaluate(path, site, "--record")
    assert status == 1
    (paragraph,) = err.strip().splitlines()
    assert paragraph.startswith("--record")
    assert named in paragraph
    assert str(path) in paragraph
    assert not list(best.parents[2].rglob("external"))


def test_a_link_to_the_checkpoint_is_followed(best: Path, tmp_path: Path) -> None:
    (tmp_path / "link.ckpt").symlink_to(best)
    assert find_own_run(tmp_path / "link.ckpt") == best.parents[1]


def test_the_record_of_a_trained_run_is_reported(
    finished: Path, tmp_path: Path, evaluate: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    assert evaluate(run / "checkpoints" / "best.ckpt", write_site(tmp_path / "scans", 24), "--record")[0] == 0
    write_leaderboard([run], tmp_path / "out")
    assert "External sets: scans (24 images of " in capsys.readouterr().out
    ((test,), _) = read_external_tests(run)
    value, low, high = test.metrics["auroc"]
    assert f"| {value:.4f} | {low:.3f} to {high:.3f} |" in (tmp_path / "out" / "leaderboard.md").read_text()
