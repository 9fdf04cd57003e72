"""Test helpers: invalid inputs, servers, run files and reference metrics."""
