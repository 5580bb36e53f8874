"""The deployed stack itself: its resources, health, settings and permissions."""
