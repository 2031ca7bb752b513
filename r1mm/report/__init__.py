"""The pages people read: one report per finished run, and one comparison of a recipe's variants."""
