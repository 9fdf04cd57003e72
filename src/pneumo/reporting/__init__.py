"""Leaderboards, comparisons, run reports and model cards."""
