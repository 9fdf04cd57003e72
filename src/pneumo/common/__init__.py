"""What the packages share: atomic files, the array cache, hardware, terminal output, text."""
