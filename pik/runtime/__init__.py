"""What runs things: processes, threads, retries, temporary files, progress and interruption."""
