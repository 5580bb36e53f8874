"""state.db: metric definitions, runs and aggregate versions, which nothing can rebuild."""
