"""Know the numbers."""
