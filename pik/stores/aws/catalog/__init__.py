"""The index table and the id files: batches, segments, deliveries and claims."""
