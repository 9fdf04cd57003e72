"""Files that runs leave, written and read here only."""
