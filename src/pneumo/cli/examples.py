"""Examples and a reference to the documentation at the end of help texts."""


def examples(page: str, *lines: str) -> str:
    """Format an epilog with one example per line and the path of a page of the documentation."""
    return "\n".join(("\b", "Examples:", *lines, "", f"Documentation: docs/{page}.md"))  # \b keeps the line breaks
