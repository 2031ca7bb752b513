"""Generation, parsing and scoring."""
