"""Figures of runs and leaderboards."""
