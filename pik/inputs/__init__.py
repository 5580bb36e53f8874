"""What is read from outside: files and streams, their compression, shape and mapping to events."""
