"""What the chains that make datasets share: records of steps, files line by line, pictures, parquet, card, hub."""
