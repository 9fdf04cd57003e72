import csv
from pathlib import Path

import numpy as np
import pytest
from helpers.reference_metrics import mcnemar
from helpers.run_files import write_failed_run, write_outputs, write_run

from pneumo.cli.commands import report
from pneumo.metrics.definitions import estimates
from pneumo.metrics.intervals import zero_variance_difference
from pneumo.metrics.significance import delong, permutation_test, placements
from pneumo.reporting.comparison import Comparison, compare, comparison_notes
from pneumo.reporting.leaderboard import write_leaderboard
from pneumo.reporting.rows import build_rows
from pneumo.runs.collection import collect
from pneumo.runs.prediction_files import read_predictions


def compare_folders(*folders: Path) -> Comparison:
    return compare(build_rows(collect(folders)))


def test_pairs_have_p_values_and_rows_have_letters(tmp_path: Path) -> None:
    write_run(tmp_path / "resnext-sgd-s0", "resnext", "sgd", 0, wrong=10)
    write_run(tmp_path / "vgg16-sgd-s0", "vgg16", "sgd", 0, wrong=16, first=5)
    write_run(tmp_path / "googlenet-sgd-s0", "googlenet", "sgd", 0, wrong=60, first=300)
    comparison = compare_folders(tmp_path)
    assert [(row.first.model, row.groups["accuracy"]) for row in comparison.rows] == [
        ("resnext", "a"),
        ("vgg16", "a"),
        ("googlenet", "b"),
    ]
    best = next(pair for pair in comparison.pairs if pair.metric == "accuracy")
    assert (best.first.first.model, best.second.first.model) == ("resnext", "vgg16")
    right = [np.ones(624, bool), np.ones(624, bool)]
    right[0][:10] = right[1][5:21] = False
    assert best.difference.p == pytest.approx(mcnemar(*right))
    assert best.difference.value == pytest.approx(6 / 624)
    assert best.difference.low < 0 < best.difference.high
    area = next(pair for pair in comparison.pairs if pair.metric == "auroc")
    models = [read_predictions(row.first.folder, row.first.results or {}) for row in (area.first, area.second)]
    assert area.difference == pytest.approx(delong(*(placements(model.score, model.positive) for model in models)))
    assert (comparison.compared, comparison.images, len(comparison.pairs)) == (3, 624, 6)
    assert [pair.holm >= pair.difference.p for pair in comparison.pairs] == [True] * 6


def test_seeds_are_compared_by_their_means(tmp_path: Path) -> None:
    for seed, (wrong, other) in enumerate(((10, 30), (14, 20))):
        write_run(tmp_path / f"resnext-sgd-s{seed}", "resnext", "sgd", seed, wrong=wrong)
        write_run(tmp_path / f"vgg16-sgd-s{seed}", "vgg16", "sgd", seed, wrong=other, first=100)
    write_run(tmp_path / "vgg16-sgd-s2", "vgg16", "sgd", 2, wrong=25, first=100)
    pair = compare_folders(tmp_path).pairs[0]
    first, second = np.full(624, 2), np.full(624, 3)
    first[:10], first[10:14] = 0, 1
    second[100:120], second[120:125], second[125:130] = 0, 1, 2
    assert pair.difference.value == pytest.approx(25 / 624 - 12 / 624)
    assert pair.difference.p == pytest.approx(permutation_test(first, second, (2, 3)))


def test_intervals_of_a_single_seed_match_results_json(tmp_path: Path) -> None:
    write_run(tmp_path / "resnext-sgd-s0", "resnext", "sgd", 0, wrong=40, first=7)
    (row,) = compare_folders(tmp_path).rows
    predictions = read_predictions(row.first.folder, row.first.results or {})
    expected = estimates(predictions.by_path())
    for name, interval in row.intervals.items():
        assert interval == pytest.approx(expected[name][1:]), name
    assert set(row.intervals) == {"accuracy", "auroc", "balanced_accuracy"}


def test_images_are_matched_by_path_regardless_of_order(tmp_path: Path) -> None:
    write_run(tmp_path / "resnext-sgd-s0", "resnext", "sgd", 0, wrong=10)
    write_run(tmp_path / "vgg16-sgd-s0", "vgg16", "sgd", 0, wrong=16)
    before = [(pair.difference, pair.holm) for pair in compare_folders(tmp_path).pairs]
    file = tmp_path / "vgg16-sgd-s0" / "predictions.csv"
    head, *lines = file.read_text().splitlines()
    file.write_text("\n".join([head, *reversed(lines)]) + "\n")
    assert [(pair.difference, pair.holm) for pair in compare_folders(tmp_path).pairs] == before


def test_rows_that_cannot_be_compared_are_left_out_with_the_reason(tmp_path: Path) -> None:
    write_run(tmp_path / "a" / "resnext-sgd-s0", "resnext", "sgd", 0, wrong=10)
    write_run(tmp_path / "a" / "vgg16-sgd-s0", "vgg16", "sgd", 0, wrong=16)
    write_run(tmp_path / "a" / "vgg16-adam-s0", "vgg16", "adam", 0, wrong=234, collapsed=True)
    write_run(tmp_path / "a" / "resnext-adam-s0", "resnext", "adam", 0, wrong=5, images=64, status="partial")
    write_run(tmp_path / "a" / "googlenet-adam-s0", "googlenet", "adam", 0, wrong=5, images=632)
    write_run(tmp_path / "a" / "timm-sgd-s0", "timm", "sgd", 0, wrong=5)
    write_run(tmp_path / "a" / "timm-sgd-s1", "timm", "sgd", 1, wrong=5, images=632)
    write_run(
        tmp_path / "a" / "xraychestnet-sgd-s0", "xraychestnet", "sgd", 0, wrong=5, data_hash="resized"
    )  # same names
    write_run(tmp_path / "a" / "trial-000", "resnext", "adagrad", 0, wrong=9)
    write_failed_run(tmp_path / "a" / "googlenet-sgd-s0", "googlenet", "sgd")
    comparison = compare_folders(tmp_path / "a")
    assert {(row.first.model, row.first.optimizer): reason for row, reason in comparison.left_out} == {
        ("vgg16", "adam"): "collapsed",
        ("resnext", "adam"): "was tested on a part of the images",
        ("googlenet", "adam"): "was tested on other images than the compared rows",
        ("xraychestnet", "sgd"): "was tested on other images than the compared rows",
        ("timm", "sgd"): "has seeds that were tested on different images",
        ("resnext", "adagrad"): "is a trial of a search",
        ("googlenet", "sgd"): "has not finished",
    }
    assert comparison.compared == 2
    assert all(not row.groups for row, _ in comparison.left_out)
    notes = " ".join(comparison_notes(comparison))
    assert "vgg16 adam, because it collapsed" in notes
    write_leaderboard([tmp_path / "a"], tmp_path / "out")
    assert "vgg16 adam, because it collapsed" in (tmp_path / "out" / "leaderboard.md").read_text()


def test_test_sets_of_one_class_are_not_compared(tmp_path: Path) -> None:
    for optimizer in ("sgd", "adam"):
        folder = tmp_path / f"resnext-{optimizer}-s0"
        write_run(folder, "resnext", optimizer, 0, wrong=10)
        write_outputs(folder / "predictions.csv", np.ones(624, bool), np.linspace(0, 1, 624))
    comparison = compare_folders(tmp_path)
    assert [reason for _, reason in comparison.left_out] == ["was tested on images of one class"] * 2
    assert comparison.pairs == ()


def test_a_single_row_has_no_letters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "resnext-sgd-s0", "resnext", "sgd", 0, wrong=10)
    write_leaderboard([tmp_path], tmp_path / "out")
    assert "group" not in capsys.readouterr().out
    assert len((tmp_path / "out" / "comparisons.csv").read_text().splitlines()) == 1


def test_seeds_of_one_configuration_are_not_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (0, 1):
        write_run(tmp_path / f"resnext-sgd-s{seed}", "resnext", "sgd", seed, wrong=10)
    report([tmp_path / "resnext-sgd-s0", tmp_path / "resnext-sgd-s1"])
    assert "seeds or folds of one configuration" in capsys.readouterr().out


def test_report_compares_two_sweeps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for optimizer in ("sgd", "adam", "adagrad"):
        write_run(tmp_path / "study" / f"vgg16-{optimizer}-s0", "vgg16", optimizer, 0, wrong=60)
        write_run(tmp_path / "robust" / f"vgg16-{optimizer}-s0", "vgg16", optimizer, 0, wrong=20)
    report([tmp_path / "study", tmp_path / "robust"], tmp_path / "out")
    shown = [line.split() for line in capsys.readouterr().out.splitlines() if line.split()[:1] == ["accuracy"]]
    assert len(shown) == 3  # only pairs with the same network and optimizer, of 15
    assert all(line[1] == "robust" and "+0.0641" in line for line in shown)
    with (tmp_path / "out" / "comparisons.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 2 * 15
    pair = next(line for line in lines if (line["first_sweep"], line["second_sweep"]) == ("robust", "study"))
    assert (pair["metric"], pair["different"]) == ("accuracy", "true")
    assert float(pair["difference"]) == pytest.approx(40 / 624)
    assert float(pair["p"]) == pytest.approx(2 * 0.5**40)
    assert float(pair["p_holm"]) == pytest.approx(15 * 2 * 0.5**40)


def test_images_of_one_patient_are_clustered(tmp_path: Path) -> None:
    for name, wrong, first in (("resnext", 10, 0), ("vgg16", 40, 100)):
        write_run(tmp_path / f"{name}-sgd-s0", name, "sgd", 0, wrong=wrong, first=first)
    unclustered = compare_folders(tmp_path)
    lines = [f"test/{i}.jpeg,test,X,none,person{i // 8}" for i in range(624)]
    known = tmp_path / "vgg16-sgd-s0" / "splits.csv"  # one run with patients is enough
    known.write_text("\n".join(["path,split,class,subtype,patient", *lines]))
    comparison = compare_folders(tmp_path)
    assert (unclustered.patients, comparison.patients, comparison.images) == (624, 78, 624)
    right = np.ones((2, 624), int)
    right[0, :10] = right[1, 100:140] = 0
    for pair, before in zip(comparison.pairs, unclustered.pairs, strict=True):
        assert pair.difference.value == before.difference.value
        assert pair.difference.p > before.difference.p
    assert comparison.pairs[0].difference.p == permutation_test(right[0], right[1], (1, 1), np.arange(624) // 8)
    for row, without in zip(comparison.rows, unclustered.rows, strict=True):
        for name, (low, high) in row.intervals.items():
            assert high - low > np.diff(without.intervals[name]), name
    assert "624 images of 78 patients" in comparison_notes(comparison)[0]
    assert "Obuchowski" in comparison_notes(comparison)[0]
    lines = [f"test/{i}.jpeg,test,X,none,person{i}" for i in range(624)]
    known.write_text("\n".join(["path,split,class,subtype,patient", *lines]))
    assert [pair.difference for pair in compare_folders(tmp_path).pairs] == [
        pair.difference for pair in unclustered.pairs
    ]


def test_copies_of_a_run_as_additional_seeds_are_not_significant(tmp_path: Path) -> None:
    for seed in range(3):
        write_run(tmp_path / f"resnext-sgd-s{seed}", "resnext", "sgd", seed, wrong=10)
        copy = tmp_path / "resnext-sgd-s0" / "predictions.csv"
        (tmp_path / f"resnext-sgd-s{seed}" / "predictions.csv").write_text(copy.read_text())
    write_run(tmp_path / "vgg16-sgd-s0", "vgg16", "sgd", 0, wrong=10)
    for pair in compare_folders(tmp_path).pairs:
        images = 624 if pair.metric == "accuracy" else 234  # all images, and those of the smaller class
        assert pair.difference == (0, *zero_variance_difference(0, images), 1)
