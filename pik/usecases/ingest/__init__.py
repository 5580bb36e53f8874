"""Recording events: batches of files, API requests, resuming what was interrupted."""
