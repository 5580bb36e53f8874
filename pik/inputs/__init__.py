"""Inputs: files, streams and S3 objects; their compression and shape, and the mapping of their records to events."""
