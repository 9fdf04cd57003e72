"""Files that a user asks a command to write."""

from collections.abc import Iterable
from pathlib import Path

from pneumo.errors import ConfigError
from pneumo.files import require_writable, write_text


def check_output(option: str, path: Path | None) -> None:
    """Make the folder of the file that an option names, and raise a ConfigError if the file cannot be written."""
    if path is None:
        return
    if path.is_dir():
        example = path / f"pneumo{path.suffix or '.' + option.lstrip('-')}"
        raise ConfigError(f"{option} {path} is a folder: name a file, such as {example}.")
    check_folder(option, path.parent, path)


def refuse_inputs(outputs: Iterable[tuple[str, Path | None]], inputs: Iterable[Path]) -> None:
    """Raise a ConfigError if a command would overwrite an input, or one output by another.

    Args:
        outputs: Files that it will write, with the options that name them; None where there is none.
        inputs: Files that it reads.
    """
    written: dict[Path, str] = {}
    for option, path in outputs:
        if path is not None and (other := written.setdefault(path.resolve(), option)) != option:
            raise ConfigError(f"{option} {path} is the file that {other} names too: name another one.")
    for path in inputs:
        if named := written.get(path.resolve()):
            raise ConfigError(
                f"{named} {path} is a file that this command reads, and it would be overwritten: name another file."
            )


def check_folder(option: str, folder: Path, path: Path | None = None) -> None:
    """Make a folder if it is missing, and raise a ConfigError if it cannot be written.

    Args:
        option: That names it, or the file in it.
        folder: To write to.
        path: The file in it that the option names, if it names one.
    """
    try:
        require_writable(folder)
    except OSError as error:
        raise unwritable(option, path or folder, error) from error


def write_output(option: str, path: Path, text: str) -> None:
    """Write the file that an option names, atomically, or raise a ConfigError."""
    try:
        write_text(path, text)
    except OSError as error:
        raise unwritable(option, path, error) from error


def unwritable(option: str, path: Path, error: OSError) -> ConfigError:
    """Return the error of a place which an option names and which cannot be written."""
    return ConfigError(f"{option} {path} cannot be written ({error.strerror or error}): name another place.")
