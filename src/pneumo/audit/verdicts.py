"""Verdicts: what the findings mean for a network's numbers, and what to do about it."""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from scipy.stats import chi2_contingency

from pneumo.audit.copies import Copies
from pneumo.audit.findings import Findings
from pneumo.audit.patients import ENOUGH
from pneumo.audit.shortcuts import Probe
from pneumo.data.notes import itemize, some, summarize

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")

# AUROCs of a probe, at the lower end of its interval: networks themselves reach 0.9, and below 0.7 guesses are poor.
AS_GOOD_AS_A_NETWORK, TELLING = 0.9, 0.7
MANY_COPIES = 0.05  # share of the images
_MOST = 3  # unreadable files that are named with their reasons
FEW = 100  # images, whose accuracy is known to +-10 points at best


class Verdict(NamedTuple):
    """One thing to know about the data.

    Attributes:
        severity: An error makes test results wrong; a warning may; a note does not, but is good to know.
        check: Which check says so: a stable name.
        message: What was found, with numbers.
        remedy: What to do.
    """

    severity: Severity
    check: str
    message: str
    remedy: str


def judge(findings: Findings) -> list[Verdict]:
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
        message = (
            f"{_count(len(junk), 'other file')} in the folders, of which none is an image of a class: {some(junk)}."
        )
        yield Verdict("note", "junk", message, "They are left out.")


def _classes(findings: Findings) -> Iterator[Verdict]:
    counts = findings.class_counts()
    if missing := [f"{split}/{name}" for split, row in counts.items() for name, n in row.items() if n == 0]:
        remedy = (
            "Without all classes in a split, sensitivity, specificity and AUROC have no meaning there: divide anew."
        )
        yield Verdict("warning", "missing_class", f"There is no image in {some(missing)}.", remedy)
    for split, row in counts.items():
        total, largest = sum(row.values()), max(row, key=lambda name: row[name])
        if split != "train" and 0 < total < FEW:
            margin = 98 / total**0.5
            message = (
                f"{split} has {_count(total, 'image')}: an accuracy of 0.5 is uncertain by ±{margin:.0f} points there."
            )
            remedy = "Quote intervals, and choose nothing by so few: data.split=patient holds out training patients."
            yield Verdict("note", "small_split", message, remedy)
        if len(row) > 1 and row[largest] > 0.7 * total:
            share = row[largest] / total
            message = f"{share:.1%} of {split} are {largest}: a network that always says so has that accuracy."
            yield Verdict("note", "balance", message, "Read balanced accuracy and AUROC beside the accuracy.")
    if "train" in counts and "test" in counts and not missing and len(findings.tree.classes) > 1:
        train, test = counts["train"], counts["test"]
        if chi2_contingency([list(train.values()), list(test.values())]).pvalue < 0.001:
            name = max(train, key=lambda name: train[name])
            shares = [row[name] / sum(row.values()) for row in (train, test)]
            message = (
                f"{name} makes up {shares[0]:.1%} of train, but {shares[1]:.1%} of test, more than chance would have."
            )
            yield Verdict(
                "note", "shift", message, "Probabilities are off on test: choose the threshold by validation."
            )


def _copies(findings: Findings) -> Iterator[Verdict]:
    copies = findings.copies
    if conflicts := [group for group in copies if len(group.labels) > 1]:
        message = f"{_count(len(conflicts), 'image')} under two classes: {_example(findings, conflicts)}."
        yield Verdict(
            "error", "conflict", message, "Ask which is right and delete the other; no network can learn both."
        )
    if across := [group for group in copies if len(group.splits) > 1]:
        message = f"{_count(len(across), 'image')} in several splits: {_example(findings, across)}."
        remedy = "Delete the copies in train: a test on images that were learnt says nothing."
        yield Verdict("error", "copies_across_splits", message, remedy)
    if inside := [group for group in copies if len(group.splits) == 1 and len(group.labels) == 1]:
        number = sum(len(group.members) for group in inside)
        share = (number - len(inside)) / len(findings.pictures)
        message = (
            f"{_count(len(inside), 'image')} several times in one split and class, as {number} files "
            f"({share:.1%} too many), {sum(group.identical for group in inside)} of them to the byte and "
            f"{sum(_has_several_names(findings, group) for group in inside)} under the names of several patients: "
            f"{_example(findings, inside)}."
        )
        remedy = "They lend weight to some images. When patients are held out, copies must stay on one side."
        yield Verdict("warning" if share > MANY_COPIES else "note", "copies", message, remedy)


def _patients(findings: Findings) -> Iterator[Verdict]:
    patients, files = findings.patients, findings.tree.files
    silent = sum(file.patient is None for file in files)
    if silent:
        message = (
            f"The names of {silent:,} of {len(files):,} files tell no patient: films of one child are not noticed."
        )
        yield Verdict("note", "no_patients", message, "Make sure from another source that no patient is in two splits.")
    if not patients.shared:
        return
    across, within = patients.across, patients.within
    names = f"{_count(len(patients.shared), 'patient name')} in several splits ({some(patients.shared)})"
    remedy = "Put all images of a patient into one split, or rename them if numbers were given twice."
    seen = "" if across.excess is None else f"excess cosine {across.excess:.3f}, p = {patients.p_value:.2g}"
    if patients.conclusion == "different":
        message = (
            f"{names}, but not the same children: across splits, films of one name are no more alike than strangers' "
            f"(excess cosine {_interval(across.excess, across.low, across.high)}), while within a split they are "
            f"({_interval(within.excess, within.low, within.high)}); {patients.shared_subtypes:,} of the names have "
            "films of the same class and subtype on both sides. The numbering starts anew."
        )
        remedy = "No leakage is shown; that a few of the names do mean the same child cannot be ruled out."
        yield Verdict("note", "patients", message, remedy)
    elif patients.conclusion == "same":
        message = f"{names}, and their films are more alike than strangers' ({seen}): the test is not on new patients."
        yield Verdict("error", "patients", message, remedy)
    else:
        least = f"fewer than {ENOUGH} names" if min(across.names, within.names) < ENOUGH else "too much scatter"
        message = (
            f"{names}; whether those are the same patients, the films do not tell ({least}; {seen or 'only copies'})."
        )
        yield Verdict("warning", "patients", message, remedy)


def _subtypes(findings: Findings) -> Iterator[Verdict]:
    """Report names that count each subtype's patients from 1."""
    mixed, within = findings.patients.subtypes, findings.patients.within
    if mixed.names < ENOUGH or within.names < ENOUGH or mixed.high is None or within.low is None:
        return
    if mixed.high < within.low / 2:
        message = (
            f"{mixed.names} patient names occur with several subtypes or classes in one split, and such films are no "
            f"more alike than strangers' ({_interval(mixed.excess, mixed.low, mixed.high)}): each subtype seems to be "
            "numbered for itself."
        )
        yield Verdict(
            "note", "numbering", message, "Count patients by name and subtype; to split by name alone is safe."
        )


_MEANING = {
    "metadata": "width, height, bytes, bytes per pixel and mode, without a single pixel",
    "shape": "the ratio of width to height alone",
    "frame": "the outer sixteenth of each side, where hardly any lung is",
    "thumbnail": "8 x 8 pixels, which show no more than broad shades",
}
_REMEDIES = {
    "metadata": "The classes were saved or cropped differently, and networks learn traces of compression: save all "
    "images in one way before training, and test on images of another source.",
    "shape": "Squeezed to squares, one class looks wider, and networks learn that: stretch training images at random "
    "(augment.stretch), or pad images to squares before training.",
    "frame": "Posture, cropping, markers or the device tell the classes apart: crop to the lungs, and test on images "
    "of another source before a network's answers are ascribed to the lungs.",
    "thumbnail": "Part of that is real, as opacities brighten lungs; a network must do better than this to show that "
    "it sees findings.",
}


def _shortcuts(findings: Findings) -> Iterator[Verdict]:
    for probe in findings.probes:
        if probe.auroc is None or probe.low is None:
            message = f"How well {probe.name} tells the classes was not measured: one class only, or too few patients."
            yield Verdict("note", probe.name, message, "Add images.")
        elif probe.low >= TELLING:
            area = _interval(probe.auroc, probe.low, probe.high)
            message = f"Labels can be guessed from {_MEANING[probe.name]}: AUROC {area}, where 0.5 is chance."
            yield Verdict(_severity(probe), probe.name, message, _REMEDIES[probe.name])


def _severity(probe: Probe) -> Severity:
    """Files betray labels for no medical reason; a frame still shows parts of the body, and a thumbnail the lungs."""
    if probe.name == "thumbnail":
        return "note"
    strong = probe.name == "metadata" and (probe.low or 0) >= AS_GOOD_AS_A_NETWORK
    return "error" if strong else "warning"


def _has_several_names(findings: Findings, group: Copies) -> bool:
    return len({findings.pictures.files[member].patient for member in group.members}) > 1


def _example(findings: Findings, groups: Sequence[Copies]) -> str:
    return ("such as " if len(groups) > 1 else "") + " = ".join(findings.paths(groups[0])[:3])


def _interval(value: float | None, low: float | None, high: float | None) -> str:
    ends = "" if low is None or high is None else f" ({low:.3f} to {high:.3f})"
    return "none" if value is None else f"{value:.3f}{ends}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
