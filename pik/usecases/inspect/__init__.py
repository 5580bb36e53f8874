"""Seeing what arrived: events, deliveries, duplicates, batches."""
