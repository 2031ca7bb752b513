"""The miniature world: scenes to count in, and what draws them."""
