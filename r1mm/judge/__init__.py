"""Judging a run: the statistics, and the verdict on every claim."""
