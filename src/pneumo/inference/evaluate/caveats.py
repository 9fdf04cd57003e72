"""Caveats of an evaluation: where its numbers mean little, and what to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from pneumo.common.text import count_noun, escape_line
from pneumo.data.image_notes import abbreviate, itemize
from pneumo.inference.evaluate.confounding import METADATA, is_age
from pneumo.inference.evaluate.evaluation_results import EvaluationResults
from pneumo.inference.evaluate.factors import unknown_columns
from pneumo.inference.evaluate.performance import Performance
from pneumo.inference.evaluate.reference import Reference
from pneumo.metrics.significance import SIGNIFICANCE_LEVEL
from pneumo.reporting.assessment import SEVERITIES, Verdict
from pneumo.reporting.generalization import GAP_METRICS

MIN_IMAGES = 50  # of a class
CHANCE = 0.5  # AUROC without information
_REPLACE = "Use another network."
_MIN_PROBE_AUROC = 0.6  # of a property that reveals the label, if the interval also excludes chance
_MAX_OOD = 0.1  # fraction; the limit is exceeded by 1 % of in-distribution images and by 15 % of augmented ones
_MIN_DROP = 0.05  # of balanced accuracy
_MAX_LISTED = 5


def assess(evaluation: EvaluationResults) -> list[Verdict]:
    """Return the verdicts, the most severe first."""
    checks = (
        *(_leakage, _adaptation, _run, _classes, _labels, _collapse, _discrimination, _confounding, _images),
        *(_internal, _calibration, _subgroups, _columns, _entries),
    )
    verdicts = (verdict for check in checks for verdict in check(evaluation))
    return sorted(verdicts, key=lambda verdict: SEVERITIES.index(verdict.severity))


def _leakage(evaluation: EvaluationResults) -> Iterator[Verdict]:
    leakage = evaluation.leakage
    if isinstance(leakage, str):
        yield Verdict("note", "leakage_unchecked", f"Leakage was not checked: {leakage.rstrip('.')}.", "")
    elif leakage.images:
        pairs = abbreviate(f"{image} = {other}" for image, other in leakage.pairs)
        message = f"{count_noun(leakage.images, 'image')} are near-duplicates of training images: {pairs}."
        remedy = "Use the metrics without them: the network was trained on these images."
        yield Verdict("error", "leakage", message, remedy)


def _adaptation(evaluation: EvaluationResults) -> Iterator[Verdict]:
    if evaluation.adaptation:
        remedy = "On the same images or patients, results are too good: use those that pneumo adapt printed."
        yield Verdict("note", "adapted", evaluation.adaptation, remedy)


def _run(evaluation: EvaluationResults) -> Iterator[Verdict]:
    reference = evaluation.reference
    if isinstance(reference, Reference) and reference.unverified_run is not None:
        message = f"It could not be verified that the run {reference.unverified_run} trained this network."
        remedy = "Evaluate the best.ckpt of the run, or a checkpoint with a stored internal test."
        yield Verdict("note", "run_unverified", message, remedy)


def _classes(evaluation: EvaluationResults) -> Iterator[Verdict]:
    overall = evaluation.overall
    if overall.undefined:
        message = f"Images of a class are absent, so these metrics are undefined: {', '.join(overall.undefined)}."
        yield Verdict("warning", "absent_class", message, "Add images of each class.")
    few = [text for part in (overall, *evaluation.sites.values()) for text in _few_images(part)]
    if few:
        message = itemize(f"A class has fewer than {MIN_IMAGES} images:", few)
        remedy = "Report the intervals. Do not compare sites or subgroups by such numbers; collect more images."
        yield Verdict("warning", "few_images", message, remedy)


def _few_images(performance: Performance) -> list[str]:
    names = performance.predictions.classes
    counts = np.bincount(performance.predictions.label, minlength=len(names))
    small = [f"{count} {name}" for name, count in zip(names, counts.tolist(), strict=True) if 0 < count < MIN_IMAGES]
    return [f"{performance.name}: {', '.join(small)}"] if small else []


def _labels(evaluation: EvaluationResults) -> Iterator[Verdict]:
    if evaluation.mined_labels:
        message = (
            "The labels were extracted from reports. Reports mention what was asked, use earlier images and omit what "
            "is known, so many such labels are wrong."
        )
        remedy = "Read these numbers as agreement with reports, not with findings. Have a sample labelled by readers."
        yield Verdict("warning", "mined_labels", message, remedy)


def _collapse(evaluation: EvaluationResults) -> Iterator[Verdict]:
    predictions = evaluation.overall.predictions
    predicted = np.unique(predictions.predicted)
    if len(predicted) == 1 and len(np.unique(predictions.label)) > 1:
        message = f"All images are predicted as {predictions.classes[int(predicted[0])]}."
        remedy = _adapt(evaluation, "Adapt the threshold with pneumo adapt, or use another network.", _REPLACE)
        yield Verdict("error", "collapsed", message, remedy)


def _discrimination(evaluation: EvaluationResults) -> Iterator[Verdict]:
    area = evaluation.overall.main_metrics.get("auroc")
    if area is None or area.low > CHANCE:
        return
    if area.high < CHANCE:
        message = f"The AUROC is {area.describe()}, so the network ranks the classes inversely."
        remedy = "Check the labels, the order of the classes and --map. If they are correct, use another network."
    else:
        message = (
            f"The AUROC is {area.describe()}, so it may be no better than chance ({CHANCE}): no threshold can correct "
            "this."
        )
        remedy = "Evaluate more images, or train on images of this site."
    yield Verdict("warning", "discrimination", message, remedy)


def _adapt(evaluation: EvaluationResults, remedy: str, other: str) -> str:
    """Return a remedy that recommends an adaptation, or another one if that is impossible or without effect."""
    area = evaluation.overall.main_metrics.get("auroc")
    if evaluation.rules.positive_class is None:
        return other
    if area is not None and area.low <= CHANCE:
        return f"{other} Do not adapt the network before its AUROC is shown to be above chance."
    return remedy


def _confounding(evaluation: EvaluationResults) -> Iterator[Verdict]:
    for probe in evaluation.probes:
        area = probe.estimate
        if area is None or area.value < _MIN_PROBE_AUROC or area.low <= CHANCE:
            continue
        source = "width, height, size and format of the files" if probe.name == METADATA else probe.name
        message = (
            f"Labels can be predicted from {source} alone: AUROC {area.describe()}, where {CHANCE} is chance. The "
            "classes differ in more than the finding."
        )
        remedy = f"Report each group with --by {probe.name}."
        if probe.name == METADATA:
            remedy = "Export images of all classes in the same way."
        elif is_age(probe.name):
            remedy = f"Part of this may be genuine. Report age bands with --by {probe.name}."
        yield Verdict("warning", "confounding", message, remedy)


def _images(evaluation: EvaluationResults) -> Iterator[Verdict]:
    fraction, cohort = evaluation.fractions.out_of_distribution, evaluation.cohort
    if fraction is not None and fraction.value > _MAX_OOD:
        message = (
            f"{100 * fraction.value:.0f} % of the images are out of distribution: they differ from the training images."
        )
        remedy = "Check some of them for other views, body parts or processing. Expect less than the internal test."
        yield Verdict("warning", "out_of_distribution", message, remedy)
    if cohort.notes:
        lines = [f"{kind} ({count_noun(count, 'image')})" for kind, count in cohort.notes.items()]
        message = itemize(f"{count_noun(sum(map(bool, cohort.remarks)), 'doubtful image')}:", lines)
        yield Verdict("note", "notes", message, "The file written by --csv names them.")
    if unknown := cohort.unknown_patients:
        message = f"The patient of {unknown:,} of {len(cohort.images):,} images is unknown; each counts as one patient."
        remedy = "Add a column patient: with several images of a patient, the intervals are too narrow."
        yield Verdict("note", "no_patients", message, remedy)


def _internal(evaluation: EvaluationResults) -> Iterator[Verdict]:
    gap = evaluation.gap
    if isinstance(gap, str):
        return
    lost = [f"{title} by {gap.drop[name].describe()}" for name, title in GAP_METRICS.items() if gap.drop[name].low > 0]
    if lost:
        message = f"Compared with the internal test, these metrics are lower: {', '.join(lost)}."
        remedy = "Do not quote the internal test for such images."
        yield Verdict("warning", "external_drop", message, remedy)
    if gap.threshold_drop > _MIN_DROP:
        message = (
            f"Another threshold would have reached a balanced accuracy of up to {gap.oracle:.3f} instead of "
            f"{gap.test_metrics['balanced_accuracy'].value:.3f}."
        )
        remedy = _adapt(evaluation, "Select a local threshold with pneumo adapt.", _REPLACE)
        yield Verdict("warning", "threshold", message, remedy)


def _calibration(evaluation: EvaluationResults) -> Iterator[Verdict]:
    calibration = evaluation.overall.calibration
    faults = []
    for name, estimate, ideal in (("intercept", calibration.intercept, 0), ("slope", calibration.slope, 1)):
        if estimate is not None and not estimate.low <= ideal <= estimate.high:
            value, low, high = (round(each, 2) + 0.0 for each in estimate)  # + 0.0 turns -0.0 into 0.0
            faults.append(f"the {name} is {value:.2f} ({low:.2f} to {high:.2f}) instead of {ideal}")
    if faults:
        message = f"The probabilities are not calibrated on these images: {' and '.join(faults)}."
        remedy = "Recalibrate them with pneumo adapt before using them as risks."
        yield Verdict("warning", "calibration", message, _adapt(evaluation, remedy, "Do not use them as risks."))


def _subgroups(evaluation: EvaluationResults) -> Iterator[Verdict]:
    different = [test for test in evaluation.subgroups.differences if test.holm < SIGNIFICANCE_LEVEL]
    if different:
        lines = [
            f"{test.factor} {test.level}: {test.metric} {test.difference.value:+.3f} (p = {test.holm:.2g})"
            for test in different
        ]
        message = itemize("Subgroups differ significantly, each compared with all other levels:", lines)
        yield Verdict("warning", "subgroups", message, "Report these subgroups separately.")


def _columns(evaluation: EvaluationResults) -> Iterator[Verdict]:
    chosen = [group.factor for group in evaluation.subgroups.groups]
    for name, example in unknown_columns(evaluation.cohort, chosen).items():
        shown = escape_line(name)
        values = f"the column {shown} is empty"
        if example:
            values = f"no value of the column {shown} can be read, such as {escape_line(example[:40])}"
        remedy = "Fill it, or omit it from --by."
        if is_age(name):
            remedy = "Use ages in years, such as 63, or with a unit, such as 063Y."
        message = f"All images have an unknown value: {values}."
        yield Verdict("note", "unknown_column", message, remedy)


def _entries(evaluation: EvaluationResults) -> Iterator[Verdict]:
    cohort = evaluation.cohort
    for check, entries, text, remedy in (
        ("unreadable", cohort.unreadable, "cannot be read", "Replace them, and report them as missing."),
        ("skipped", cohort.skipped, "not used", "No action is needed if this is intended."),
    ):
        if entries:
            number = count_noun(len(entries), "image" if check == "unreadable" else "other entry")
            yield Verdict("note", check, itemize(f"{number} {text}:", _by_reason(entries)), remedy)


def _by_reason(entries: Sequence[tuple[str, str]]) -> list[str]:
    """Return one line per reason with the first three names, the most frequent reason first."""
    counts = Counter(reason for _, reason in entries)
    lines = [
        f"{reason.rstrip('.')} ({count_noun(count, 'file')}: {abbreviate(n for n, r in entries if r == reason)})"
        for reason, count in counts.most_common(_MAX_LISTED)
    ]
    hidden = len(counts) - _MAX_LISTED
    return [*lines, f"{hidden} more reasons, listed in the file written by --json"] if hidden > 0 else lines
