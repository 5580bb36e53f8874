"""Commands that show what arrived."""
