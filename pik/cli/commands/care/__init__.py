"""Commands that keep and check a store."""
