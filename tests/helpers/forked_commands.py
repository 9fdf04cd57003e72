"""Scripts in forks of a process that has imported PyTorch, since imports take most of a script's time.

Nothing is computed before a fork: threads started by a computation would be missing in the child.
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
    """Process that runs scripts in forks of itself; as a context manager, it ends on exit."""

    def __init__(self, folder: Path, work: Path) -> None:
        """Start the process.

        Args:
            folder: Folder for the output of scripts.
            work: Working folder of scripts.
        """
        self.folder = folder
        command = [sys.executable, __file__]
        self.process = subprocess.Popen(command, cwd=work, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, *arguments: str) -> Done:
        """Run a script with its arguments in the current environment, and wait for it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        outputs = [str(self.folder / name) for name in ("stdout", "stderr")]
        request = {"arguments": arguments, "environment": dict(os.environ), "outputs": outputs}
        print(json.dumps(request), file=self.process.stdin, flush=True)
        status = int(self.process.stdout.readline())
        return Done(arguments, status, *(Path(path).read_text(encoding="utf-8") for path in outputs))

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

    Plugins.instance()  # scans for Hydra's plugins once for all children
    gc.freeze()  # a garbage collection in a child would copy the memory of all imported objects
    for line in sys.stdin:
        request = json.loads(line)
        if not (child := os.fork()):
            os.environ.clear()
            os.environ.update(request["environment"])
            for descriptor, path in enumerate(request["outputs"], start=1):
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
            sys.argv[:] = request["arguments"]
            sys.path[0] = os.getcwd()
            runpy.run_path(sys.argv[0], run_name="__main__")
            return
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    _serve()
