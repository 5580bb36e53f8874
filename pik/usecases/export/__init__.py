"""Export: the deliveries of a window as files that other tools open."""
