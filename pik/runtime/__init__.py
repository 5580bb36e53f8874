"""What runs things: processes, threads, progress, sorting on disk, durable writes."""
