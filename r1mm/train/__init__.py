"""Rewards, settings, trainers and checkpoints."""
