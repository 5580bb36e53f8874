"""state.db: metric definitions, runs, the queue and aggregates, which nothing can rebuild."""
