"""How many cores there are, told without PyTorch, which takes seconds to import."""

import os


def count_cores() -> int:
    """Give the number of cores that this process may use, where the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
