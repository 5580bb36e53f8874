"""index.db: batches, segments, deliveries and corrections. It can be rebuilt from raw."""
