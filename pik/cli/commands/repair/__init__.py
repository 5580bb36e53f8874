"""Repair them."""
