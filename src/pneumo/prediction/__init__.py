"""Answers for radiographs that somebody brings."""
