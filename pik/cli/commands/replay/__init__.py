"""Commands that repair numbers."""
