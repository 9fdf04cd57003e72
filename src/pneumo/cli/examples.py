"""The end of the help texts: examples and a link to the documentation."""


def examples(page: str, *lines: str) -> str:
    """Format an epilog with one example per line and the path of a page of the documentation."""
    return "\n".join(("\b", "Examples:", *lines, "", f"Documentation: docs/{page}.md"))  # \b makes Typer keep lines
