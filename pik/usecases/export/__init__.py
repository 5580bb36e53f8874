"""Writing the events of a window as files that other tools open."""
