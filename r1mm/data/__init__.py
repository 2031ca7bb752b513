"""Pinned assets, the schemas of the datasets, and prompts."""
