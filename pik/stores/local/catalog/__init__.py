"""index.db: batches, segments, deliveries and claims, all of which raw can rebuild."""
