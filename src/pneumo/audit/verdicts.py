"""Verdicts of an audit: the effects of its findings on metrics, each with a remedy."""

from collections import Counter
from collections.abc import Iterator, Sequence

from scipy.stats import chi2_contingency

from pneumo.audit.findings import Findings
from pneumo.audit.patients import MIN_NAMES
from pneumo.audit.properties import DuplicateGroup
from pneumo.common.text import count_noun
from pneumo.data.image_notes import abbreviate, itemize, summarize
from pneumo.data.labelled_images import NO_SPLIT, NOT_FOUND
from pneumo.reporting.assessment import SEVERITIES, Severity, Verdict

# Compared with the lower end of a probe's 95 % interval. Networks that use the lungs also reach an AUROC of 0.9.
_ERROR_AUROC, _WARNING_AUROC = 0.9, 0.7
_MAX_REDUNDANT = 0.05  # fraction of the images
_MAX_LISTED = 3  # unreadable files named with their reasons
_MIN_IMAGES = 100  # per split; the 95 % interval of an accuracy is then at most +-10 points
# By the reason for which rows of a table are not used; all other reasons are notes.
_OMISSIONS: dict[str, tuple[Severity, str]] = {
    NOT_FOUND: ("error", "Add the files, or correct or delete these rows: training stops at them."),
    NO_SPLIT: ("warning", "Fill in the column split, or delete it: training stops at rows without split."),
}
# By the name of the probe: its features and the remedy.
_SHORTCUTS = {
    "metadata": (
        "width, height, file size, bytes per pixel and mode, without any pixels",
        "The classes were saved or cropped differently, and networks learn compression artefacts. Save all images in "
        "the same way before training, and test on images from another source.",
    ),
    "shape": (
        "the aspect ratio alone",
        "Resizing to squares makes one class look wider, and networks learn that. Stretch training images at random "
        "(augment.stretch), or pad images to squares before training.",
    ),
    "frame": (
        "the outer sixteenth of each side, which shows hardly any lung",
        "Posture, cropping, markers or the device differ between the classes. Crop to the lungs, and test on images "
        "from another source before attributing predictions to the lungs.",
    ),
    "thumbnail": (
        "8 x 8 pixels, which show only coarse brightness",
        "Part of this is genuine because opacities brighten the lungs. A network must exceed this AUROC to show that "
        "it detects findings.",
    ),
}


def assess(findings: Findings) -> list[Verdict]:
    """Return the verdicts, the most severe first."""
    checks = (_files, _classes, _duplicates, _patients, _subtypes, _shortcuts)
    verdicts = (verdict for check in checks for verdict in check(findings))
    return sorted(verdicts, key=lambda verdict: SEVERITIES.index(verdict.severity))


def _files(findings: Findings) -> Iterator[Verdict]:
    images, junk = findings.images, findings.tree.junk
    if unreadable := images.unreadable:
        reasons = [f"{path} {reason.rstrip('.')}" for path, reason in unreadable[:_MAX_LISTED]]
        reasons += [f"{len(unreadable) - _MAX_LISTED:,} more"] if len(unreadable) > _MAX_LISTED else []
        message = itemize(f"{count_noun(len(unreadable), 'image file')} cannot be read:", reasons)
        yield Verdict("error", "unreadable", message, "Replace or remove unreadable files: training stops at them.")
    if noted := images.noted():
        message = itemize(f"{count_noun(len(noted), 'doubtful image')}:", summarize(noted))
        remedy = "Inspect them, then save them again or remove them: training uses them as they are."
        yield Verdict("warning", "notes", message, remedy)
    if mismatched := images.mismatched():
        listed = abbreviate(f"{path} is {form}" for path, form in mismatched)
        where = "" if findings.tree.table is None else ", also in the table"
        remedy = f"Rename them{where}: pneumo detects formats from the content, but other programs may not."
        message = f"{count_noun(len(mismatched), 'file')} with the suffix of another format: {listed}."
        yield Verdict("note", "suffix", message, remedy)
    if junk:
        message = f"{count_noun(len(junk), 'other file')} ignored: {abbreviate(junk)}."
        yield Verdict("note", "junk", message, "No action is needed: only images in class folders are used.")
    omitted = findings.tree.omitted
    for reason, count in Counter(reason for _, reason in omitted).items():
        severity, remedy = _OMISSIONS.get(reason, ("note", "No action is needed: only the other rows are used."))
        files = abbreviate(path for path, other in omitted if other == reason)
        message = f"{count_noun(count, 'row')} of the table omitted, {reason}: {files}."
        yield Verdict(severity, "omitted", message, remedy)


def _classes(findings: Findings) -> Iterator[Verdict]:
    counts = findings.class_counts()
    if missing := [f"{split}/{name}" for split, row in counts.items() for name, n in row.items() if n == 0]:
        remedy = (
            "Split the data again: sensitivity, specificity and AUROC are undefined for a split that lacks a class."
        )
        yield Verdict("warning", "missing_class", f"There is no image in {abbreviate(missing)}.", remedy)
    for split, row in counts.items():
        total, largest = sum(row.values()), max(row, key=lambda name: row[name])
        if split != "train" and 0 < total < _MIN_IMAGES:
            uncertainty = f"the 95 % interval of an accuracy of 0.5 is ±{98 / total**0.5:.0f} percentage points"
            remedy = (
                "Report intervals, and do not select models on so few images. Set data.split=patient to validate on "
                "held-out training patients."
            )
            yield Verdict("note", "small_split", f"{split} has {count_noun(total, 'image')}: {uncertainty}.", remedy)
        if len(row) > 1 and row[largest] > 0.7 * total:
            message = f"The majority-class rate of {split} is {row[largest] / total:.1%} ({largest})."
            remedy = "Report balanced accuracy and AUROC in addition to the accuracy."
            yield Verdict("note", "balance", message, remedy)
    train, test = counts.get("train"), counts.get("test")
    if not (train and test) or missing or len(train) < 2:
        return
    if chi2_contingency([list(train.values()), list(test.values())]).pvalue < 0.001:
        name = max(train, key=lambda name: train[name])
        before, after = (row[name] / sum(row.values()) for row in (train, test))
        message = f"{name} makes up {before:.1%} of train but {after:.1%} of test (significant, p < 0.001)."
        remedy = "Expect miscalibrated probabilities on test, and choose the threshold on validation images."
        yield Verdict("note", "shift", message, remedy)


def _duplicates(findings: Findings) -> Iterator[Verdict]:
    duplicates = findings.duplicates
    if conflicts := [group for group in duplicates if len(group.labels) > 1]:
        message = (
            f"{count_noun(len(conflicts), 'image')} with copies in several classes{_example(findings, conflicts)}."
        )
        remedy = "Determine the correct class and remove the other copies: the labels contradict each other."
        yield Verdict("error", "conflict", message, remedy)
    if across := [group for group in duplicates if len(group.splits) > 1]:
        message = f"{count_noun(len(across), 'image')} with copies in several splits{_example(findings, across)}."
        remedy = "Remove the copies from train: results on images that were used in training are too optimistic."
        yield Verdict("error", "copies_across_splits", message, remedy)
    if inside := [group for group in duplicates if len(group.splits) == 1 and len(group.labels) == 1]:
        files = findings.images.files
        number = sum(len(group.members) for group in inside)
        renamed = sum(len({files[member].patient for member in group.members}) > 1 for group in inside)
        redundant = (number - len(inside)) / len(files)
        message = (
            f"{count_noun(len(inside), 'image')} with several copies in one split and class ({number} files, "
            f"{redundant:.1%} of the images redundant; {sum(group.identical for group in inside)} byte-identical, "
            f"{renamed} under several patient names){_example(findings, inside)}."
        )
        remedy = "Copies give some images more weight. If you hold out patients, keep all copies in the same split."
        yield Verdict("warning" if redundant > _MAX_REDUNDANT else "note", "copies", message, remedy)


def _patients(findings: Findings) -> Iterator[Verdict]:
    patients, files = findings.patients, findings.tree.files
    if unnamed := sum(file.patient is None for file in files):
        message = (
            f"The patient of {unnamed:,} of {len(files):,} images is unknown, so leaks of these patients between "
            "splits are not detected."
        )
        yield Verdict("note", "no_patients", message, "Verify from another source that no patient is in two splits.")
    if not patients.shared:
        return
    across, within = patients.across, patients.within
    names = f"{count_noun(len(patients.shared), 'patient name')} in several splits ({abbreviate(patients.shared)})"
    evidence = "" if across.excess is None else f"excess cosine {across.excess:.3f}, p = {patients.p_value:.2g}"
    severity: Severity
    remedy = "Put all images of a patient into one split. If different patients share a name, rename one."
    if patients.conclusion == "different":
        severity = "note"
        message = (
            f"{names}, but they denote different patients: the numbering restarts in each split. Across splits, images "
            "with the same name are no more similar than images of different patients (excess cosine "
            f"{_interval(across.excess, across.low, across.high)}); within a split they are more similar "
            f"({_interval(within.excess, within.low, within.high)}). {patients.shared_subtypes:,} of the names have "
            "images of the same class and subtype in several splits."
        )
        remedy = "No leakage was detected, but a few of the names may still denote the same patient."
    elif patients.conclusion == "same":
        severity = "error"
        message = (
            f"{names}, and their images are more similar than those of different patients ({evidence}): test patients "
            "are not new."
        )
    else:
        severity = "warning"
        reason = f"fewer than {MIN_NAMES} names" if min(across.names, within.names) < MIN_NAMES else "too much variance"
        message = (
            f"{names}; the images do not show whether these are the same patients "
            f"({reason}; {evidence or 'only duplicates'})."
        )
    yield Verdict(severity, "patients", message, remedy)


def _subtypes(findings: Findings) -> Iterator[Verdict]:
    """Report patient names that seem to be numbered separately for each subtype."""
    mixed, within = findings.patients.subtypes, findings.patients.within
    if min(mixed.names, within.names) < MIN_NAMES or mixed.high is None or within.low is None:
        return
    if mixed.high < within.low / 2:
        message = (
            f"{mixed.names} patient names occur with several subtypes or classes in one split, but their images are no "
            "more similar than those of different patients (excess cosine "
            f"{_interval(mixed.excess, mixed.low, mixed.high)}): each subtype seems to be numbered separately."
        )
        remedy = "Count patients by name and subtype; splitting by name alone is safe."
        yield Verdict("note", "numbering", message, remedy)


def _shortcuts(findings: Findings) -> Iterator[Verdict]:
    for probe in findings.probes:
        if probe.auroc is None or probe.low is None:
            message = f"The shortcut probe {probe.name} was skipped: there is only one class, or too few patients."
            yield Verdict("note", probe.name, message, "Add images.")
        elif probe.low >= _WARNING_AUROC:
            source, remedy = _SHORTCUTS[probe.name]
            area = _interval(probe.auroc, probe.low, probe.high)
            # Only metadata are unrelated to the body: a frame shows parts of it, and a thumbnail shows the lungs.
            strong: Severity = "error" if probe.low >= _ERROR_AUROC else "warning"
            severity = {"metadata": strong, "thumbnail": "note"}.get(probe.name, "warning")
            message = f"Labels can be predicted from {source}: AUROC {area}, where 0.5 is chance."
            yield Verdict(severity, probe.name, message, remedy)


def _example(findings: Findings, groups: Sequence[DuplicateGroup]) -> str:
    return (", such as " if len(groups) > 1 else ": ") + " = ".join(findings.paths(groups[0])[:3])


def _interval(value: float | None, low: float | None, high: float | None) -> str:
    ends = "" if low is None or high is None else f" ({low:.3f} to {high:.3f})"
    return "none" if value is None else f"{value:.3f}{ends}"
