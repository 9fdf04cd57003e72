"""Verdicts of an audit: what its findings mean for a network's numbers, and the remedy for each."""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from scipy.stats import chi2_contingency

from pneumo.audit.findings import Findings
from pneumo.audit.patients import ENOUGH
from pneumo.audit.properties import Copies
from pneumo.data.image_notes import itemize, some, summarize

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
# AUROCs of a probe, at the lower end of its interval: networks themselves reach 0.9, and below 0.7 guesses are poor.
_AS_GOOD_AS_A_NETWORK, _TELLING = 0.9, 0.7
_MANY_COPIES = 0.05  # share of the images
_MOST = 3  # unreadable files that are named with their reasons
_FEW = 100  # images, whose accuracy is known to +-10 points at best
# By the probe's name: what labels can be guessed from, and what to do about it.
_SHORTCUTS = {
    "metadata": (
        "width, height, bytes, bytes per pixel and mode, without a single pixel",
        "The classes were saved or cropped differently, and networks learn traces of compression: save all images in "
        "one way before training, and test on images of another source.",
    ),
    "shape": (
        "the ratio of width to height alone",
        "Squeezed to squares, one class looks wider, and networks learn that: stretch training images at random "
        "(augment.stretch), or pad images to squares before training.",
    ),
    "frame": (
        "the outer sixteenth of each side, where hardly any lung is",
        "Posture, cropping, markers or the device tell the classes apart: crop to the lungs, and test on images of "
        "another source before a network's answers are ascribed to the lungs.",
    ),
    "thumbnail": (
        "8 x 8 pixels, which show no more than broad shades",
        "Part of that is real, as opacities brighten lungs; a network must do better than this to show that it sees "
        "findings.",
    ),
}


class Verdict(NamedTuple):
    """One thing to know about the data."""

    severity: Severity  # an error makes test results wrong; a warning may; a note does not, but is good to know
    check: str  # which check says so: a stable name
    message: str  # what was found, with numbers
    remedy: str  # what to do


def assess(findings: Findings) -> list[Verdict]:
    """Give the verdicts, the worst first."""
    parts = (_files, _classes, _copies, _patients, _subtypes, _shortcuts)
    return sorted((v for part in parts for v in part(findings)), key=lambda verdict: SEVERITIES.index(verdict.severity))


def _files(findings: Findings) -> Iterator[Verdict]:
    pictures, junk = findings.pictures, findings.tree.junk
    if broken := pictures.unreadable:
        named = [f"{path} {reason.rstrip('.')}" for path, reason in broken[:_MOST]]
        named += [f"{len(broken) - _MOST:,} more"] if len(broken) > _MOST else []
        message = itemize(f"{_count(len(broken), 'image file')} cannot be read:", named)
        yield Verdict("error", "unreadable", message, "Replace or delete them: training stops at such a file.")
    if noted := pictures.noted():
        message = itemize(f"{_count(len(noted), 'doubtful image')}:", summarize(noted))
        remedy = "Training takes them as they are: look at them, and save them again or delete them."
        yield Verdict("warning", "notes", message, remedy)
    if wrong := pictures.mismatched():
        said = some(f"{path} is {form}" for path, form in wrong)
        remedy = "Rename them; pneumo goes by the content, other programs may not."
        yield Verdict("note", "suffix", f"{_count(len(wrong), 'file')} with another format's suffix: {said}.", remedy)
    if junk:
        what = "in the folders, of which none is an image of a class"
        yield Verdict("note", "junk", f"{_count(len(junk), 'other file')} {what}: {some(junk)}.", "They are left out.")


def _classes(findings: Findings) -> Iterator[Verdict]:
    counts = findings.class_counts()
    if missing := [f"{split}/{name}" for split, row in counts.items() for name, n in row.items() if n == 0]:
        remedy = (
            "Without all classes in a split, sensitivity, specificity and AUROC have no meaning there: divide anew."
        )
        yield Verdict("warning", "missing_class", f"There is no image in {some(missing)}.", remedy)
    for split, row in counts.items():
        total, largest = sum(row.values()), max(row, key=lambda name: row[name])
        if split != "train" and 0 < total < _FEW:
            uncertain = f"an accuracy of 0.5 is uncertain by ±{98 / total**0.5:.0f} points there"
            remedy = "Quote intervals, and choose nothing by so few: data.split=patient holds out training patients."
            yield Verdict("note", "small_split", f"{split} has {_count(total, 'image')}: {uncertain}.", remedy)
        if len(row) > 1 and row[largest] > 0.7 * total:
            share = row[largest] / total
            message = f"{share:.1%} of {split} are {largest}: a network that always says so has that accuracy."
            yield Verdict("note", "balance", message, "Read balanced accuracy and AUROC beside the accuracy.")
    train, test = counts.get("train"), counts.get("test")
    if not (train and test) or missing or len(train) < 2:
        return
    if chi2_contingency([list(train.values()), list(test.values())]).pvalue < 0.001:
        name = max(train, key=lambda name: train[name])
        before, after = (row[name] / sum(row.values()) for row in (train, test))
        message = f"{name} makes up {before:.1%} of train, but {after:.1%} of test, more than chance would have."
        yield Verdict("note", "shift", message, "Probabilities are off on test: choose the threshold by validation.")


def _copies(findings: Findings) -> Iterator[Verdict]:
    copies = findings.copies
    if conflicts := [group for group in copies if len(group.labels) > 1]:
        message = f"{_count(len(conflicts), 'image')} under two classes: {_example(findings, conflicts)}."
        remedy = "Ask which is right and delete the other; no network can learn both."
        yield Verdict("error", "conflict", message, remedy)
    if across := [group for group in copies if len(group.splits) > 1]:
        message = f"{_count(len(across), 'image')} in several splits: {_example(findings, across)}."
        remedy = "Delete the copies in train: a test on images that were learnt says nothing."
        yield Verdict("error", "copies_across_splits", message, remedy)
    if inside := [group for group in copies if len(group.splits) == 1 and len(group.labels) == 1]:
        files = findings.pictures.files
        number = sum(len(group.members) for group in inside)
        renamed = sum(len({files[member].patient for member in group.members}) > 1 for group in inside)
        share = (number - len(inside)) / len(files)
        message = (
            f"{_count(len(inside), 'image')} several times in one split and class, as {number} files "
            f"({share:.1%} too many), {sum(group.identical for group in inside)} of them to the byte and "
            f"{renamed} under the names of several patients: {_example(findings, inside)}."
        )
        remedy = "They lend weight to some images. When patients are held out, copies must stay on one side."
        yield Verdict("warning" if share > _MANY_COPIES else "note", "copies", message, remedy)


def _patients(findings: Findings) -> Iterator[Verdict]:
    patients, files = findings.patients, findings.tree.files
    if silent := sum(file.patient is None for file in files):
        message = (
            f"The names of {silent:,} of {len(files):,} files tell no patient: films of one child are not noticed."
        )
        yield Verdict("note", "no_patients", message, "Make sure from another source that no patient is in two splits.")
    if not patients.shared:
        return
    across, within = patients.across, patients.within
    names = f"{_count(len(patients.shared), 'patient name')} in several splits ({some(patients.shared)})"
    seen = "" if across.excess is None else f"excess cosine {across.excess:.3f}, p = {patients.p_value:.2g}"
    severity: Severity
    remedy = "Put all images of a patient into one split, or rename them if numbers were given twice."
    if patients.conclusion == "different":
        severity = "note"
        message = (
            f"{names}, but not the same children: across splits, films of one name are no more alike than strangers' "
            f"(excess cosine {_interval(across.excess, across.low, across.high)}), while within a split they are "
            f"({_interval(within.excess, within.low, within.high)}); {patients.shared_subtypes:,} of the names have "
            "films of the same class and subtype on both sides. The numbering starts anew."
        )
        remedy = "No leakage is shown; that a few of the names do mean the same child cannot be ruled out."
    elif patients.conclusion == "same":
        severity = "error"
        message = f"{names}, and their films are more alike than strangers' ({seen}): the test is not on new patients."
    else:
        severity = "warning"
        least = f"fewer than {ENOUGH} names" if min(across.names, within.names) < ENOUGH else "too much scatter"
        why = f"{least}; {seen or 'only copies'}"
        message = f"{names}; whether those are the same patients, the films do not tell ({why})."
    yield Verdict(severity, "patients", message, remedy)


def _subtypes(findings: Findings) -> Iterator[Verdict]:
    """Report names that count each subtype's patients from 1."""
    mixed, within = findings.patients.subtypes, findings.patients.within
    if min(mixed.names, within.names) < ENOUGH or mixed.high is None or within.low is None:
        return
    if mixed.high < within.low / 2:
        message = (
            f"{mixed.names} patient names occur with several subtypes or classes in one split, and such films are no "
            f"more alike than strangers' ({_interval(mixed.excess, mixed.low, mixed.high)}): each subtype seems to be "
            "numbered for itself."
        )
        remedy = "Count patients by name and subtype; to split by name alone is safe."
        yield Verdict("note", "numbering", message, remedy)


def _shortcuts(findings: Findings) -> Iterator[Verdict]:
    for probe in findings.probes:
        if probe.auroc is None or probe.low is None:
            message = f"How well {probe.name} tells the classes was not measured: one class only, or too few patients."
            yield Verdict("note", probe.name, message, "Add images.")
        elif probe.low >= _TELLING:
            source, remedy = _SHORTCUTS[probe.name]
            area = _interval(probe.auroc, probe.low, probe.high)
            # Files betray labels for no medical reason; a frame still shows parts of the body, a thumbnail the lungs.
            strong: Severity = "error" if probe.low >= _AS_GOOD_AS_A_NETWORK else "warning"
            severity = {"metadata": strong, "thumbnail": "note"}.get(probe.name, "warning")
            message = f"Labels can be guessed from {source}: AUROC {area}, where 0.5 is chance."
            yield Verdict(severity, probe.name, message, remedy)


def _example(findings: Findings, groups: Sequence[Copies]) -> str:
    return ("such as " if len(groups) > 1 else "") + " = ".join(findings.paths(groups[0])[:3])


def _interval(value: float | None, low: float | None, high: float | None) -> str:
    ends = "" if low is None or high is None else f" ({low:.3f} to {high:.3f})"
    return "none" if value is None else f"{value:.3f}{ends}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
