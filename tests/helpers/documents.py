"""Commands and Python examples of the README and the documentation."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from helpers.commands import ROOT

PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Example:
    """A code block of a page.

    Attributes:
        language: Language of the fence, such as bash.
        text: Lines of the block.
    """

    language: str
    text: str

    @property
    def commands(self) -> list[list[str]]:
        """The arguments of each command, without comments and anything after a pipe."""
        lines = self.text.replace("\\\n", " ").splitlines()
        commands = [shlex.split(line, comments=True) for line in lines]
        return [command[: command.index("|")] if "|" in command else command for command in commands if command]


def read_examples(page: str) -> list[Example]:
    """Return the code blocks of a page in their order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [Example(*match.groups()) for match in _BLOCK.finditer(text)]


def shrink_configuration(folder: Path) -> None:
    """Change the defaults of a copy of conf/ so that every command trains briefly on small images.

    A threshold from validation keeps networks that are hardly trained from predicting a single class.

    Raises:
        ValueError: A file does not contain an expected default.
    """
    changes = {
        "train.yaml": [
            ("epochs: 20", "epochs: 1"),
            ("figures: true", "figures: false"),
            ("threshold: fixed", "threshold: youden"),
        ],
        "backbone.yaml": [("weights: DEFAULT", "weights: null")],
        "data/chest_xray.yaml": [
            ("root: null", "root: data/chest_xray"),  # the default rejects phantoms in this folder
            ("image_size: 224", "image_size: 32"),
            ("batch_size: 32", "batch_size: 16"),
            ("num_workers: null", "num_workers: 0"),
        ],
        "data/synthetic.yaml": [("train: 800", "train: 32"), ("val: 100", "val: 16"), ("test: 200", "test: 16")],
        "hydra/sweeper/pneumo.yaml": [("xraychestnet,vgg16,resnext,googlenet", "xraychestnet,googlenet")],
        "model/xraychestnet.yaml": [("epochs: 30", "epochs: 1"), ("robust_epochs: 20", "robust_epochs: 1")],
        "experiment/robust.yaml": [("robust_epochs,5", "robust_epochs,1"), ("image_size: 192", "image_size: 32")],
        "experiment/search_optuna.yaml": [("trials: 20", "trials: 2")],
    }
    for name, replacements in changes.items():
        path = folder / name
        text = path.read_text(encoding="utf-8")
        for old, new in replacements:
            if old not in text:
                raise ValueError(f"{name} does not contain {old!r}")
            text = text.replace(old, new)
        path.write_text(text, encoding="utf-8")
