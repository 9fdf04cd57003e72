"""The command `pneumo adapt`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pneumo.common.files import check_output, write_output
from pneumo.common.terminal import print_line
from pneumo.data.selection import DataSelection, merge_sets
from pneumo.errors import ConfigError
from pneumo.inference.adapt.adaptation import adapt, adapted_content
from pneumo.inference.adapt.adaptation_report import print_adaptation, to_json
from pneumo.inference.adapt.adaptation_warnings import list_warnings
from pneumo.inference.backend import as_flag
from pneumo.inference.command_inputs import read_selection
from pneumo.inference.export.formats import FORMATS
from pneumo.inference.predictor import load_predictor
from pneumo.metrics.local_adaptation import RULES, TARGET_RULES, ThresholdRule
from pneumo.models.checkpoint_reader import read_checkpoint
from pneumo.models.checkpoint_writer import save_output

_DEFAULT_TARGET = 0.9


@dataclass(frozen=True)
class AdaptationOptions:
    """Options of an adaptation, named like those of the command."""

    rule: str = RULES[0]  # see `pneumo.metrics.local_adaptation.fit_local_point`
    target: float | None = None  # required sensitivity or specificity; None: 0.9 for the rules that need one
    width: float = 0.1  # wanted width of 95 % intervals, for the number of images needed

    def check(self) -> ThresholdRule:
        """Return the rule of the threshold; raise a ConfigError for an invalid option."""
        if self.rule not in RULES:
            raise ConfigError(f"--rule {self.rule} is unknown: it must be {', '.join(RULES)}. Use --rule {RULES[0]}.")
        if self.target is not None and self.rule not in TARGET_RULES:
            raise ConfigError(
                f"--target {self.target:g} has no effect with --rule {self.rule}: it is the value that the rules "
                f"{' and '.join(TARGET_RULES)} require. Omit it, or use --rule sensitivity."
            )
        if self.target is not None and not 0 < self.target <= 1:
            raise ConfigError(
                f"--target {self.target:g} is out of range: it must be above 0 and at most 1. Use a value such as 0.9."
            )
        if not 0 < self.width < 1:
            raise ConfigError(
                f"--width {self.width:g} is out of range: it is the width of an interval of a proportion, above 0 and "
                "below 1. Use a value such as 0.1."
            )
        target = _DEFAULT_TARGET if self.target is None else self.target
        return ThresholdRule(self.rule, target if self.rule in TARGET_RULES else None)


def run_adapt(
    checkpoint: Path,
    selection: DataSelection,
    output: Path,
    json: Path | None,
    options: AdaptationOptions,
    batch_size: int | None,
    device: str,
) -> None:
    """Adapt a checkpoint to labelled images, print the effect, and write the new checkpoint.

    Args:
        checkpoint: Checkpoint of a binary classifier. Of an adapted one, only the weights and the original operating
            point are used: the earlier adaptation is replaced.
        selection: Labelled images of the new site; several sets are merged.
        output: New checkpoint.
        json: File for the results; None: none.
        options: Options of the adaptation.
        batch_size: Batch size; None: the fastest.
        device: cpu, cuda or auto.

    Raises:
        ConfigError: An option is invalid, a file cannot be written, or `checkpoint` is not one of two classes.
        DataError: The images are too few, of one class or cannot be read, or the network ranks them inversely.
    """
    rule = options.check()
    if checkpoint.suffix.lower() in FORMATS:
        raise ConfigError(
            f"{checkpoint} is an exported file, which cannot be adapted. Adapt the checkpoint that it was exported "
            "from, and export the result."
        )
    if output.suffix != ".ckpt":
        raise ConfigError(f"--output {output} must end in .ckpt. Use a name such as --output adapted.ckpt.")
    check_output("--output", output)
    check_output("--json", json)
    sets = read_selection(selection, [("--output", output), ("--json", json)], [checkpoint])
    model = load_predictor(checkpoint, device, batch_size, as_flag)
    content = read_checkpoint(checkpoint)
    adaptation = adapt(model, content, merge_sets(sets), rule, options.width)
    record = adaptation.record()
    warnings = list_warnings(record, adaptation.cohort.unknown_patients)
    save_output("--output", adapted_content(content, record), output)
    if json is not None:
        write_output("--json", json, to_json(record, adaptation.requirements, warnings, checkpoint, output))
    print_adaptation(record, adaptation.cohort, adaptation.requirements, warnings)
    print_line(f"Wrote {output}. Not a medical device: for research and teaching only.")
