"""See what arrived."""
