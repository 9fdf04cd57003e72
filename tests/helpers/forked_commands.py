"""Scripts run in processes forked from one that has imported PyTorch, since importing takes most of their time.

Nothing is computed before the fork, so that there are no threads that a child would lack.
"""

import gc
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from types import TracebackType

Done = subprocess.CompletedProcess[str]


class ForkedCommands:
    """A process that runs scripts in forks of itself; a context that ends it."""

    def __init__(self, folder: Path, work: Path) -> None:
        """Start the process.

        Args:
            folder: For the output of scripts.
            work: The working folder of scripts.
        """
        self.folder = folder
        command = [sys.executable, __file__]
        self.process = subprocess.Popen(command, cwd=work, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, *arguments: str) -> Done:
        """Run a script with its arguments, in the environment of now, and wait for it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        printed = [str(self.folder / name) for name in ("stdout", "stderr")]
        order = {"arguments": arguments, "environment": dict(os.environ), "printed": printed}
        print(json.dumps(order), file=self.process.stdin, flush=True)
        status = int(self.process.stdout.readline())
        return Done(arguments, status, *(Path(path).read_text(encoding="utf-8") for path in printed))

    def __enter__(self) -> "ForkedCommands":
        """Return the process."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process."""
        self.process.communicate()


def _serve() -> None:
    from hydra.core.plugins import Plugins

    import pneumo.training.run  # noqa: F401 (for the children)

    Plugins.instance()  # finds Hydra's plugins once for all children
    gc.freeze()  # children need not collect what was imported, which would copy its memory
    for line in sys.stdin:
        order = json.loads(line)
        if not (child := os.fork()):
            os.environ.clear()
            os.environ.update(order["environment"])
            for descriptor, path in enumerate(order["printed"], start=1):
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
            sys.argv[:] = order["arguments"]
            sys.path[0] = os.getcwd()
            runpy.run_path(sys.argv[0], run_name="__main__")
            return
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    _serve()
