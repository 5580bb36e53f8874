"""Commands about the numbers."""
