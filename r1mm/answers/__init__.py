"""Answers to problems with lettered options or without: found in a text, and compared with the truth."""
