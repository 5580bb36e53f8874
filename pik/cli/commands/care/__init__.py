"""Keep and check."""
