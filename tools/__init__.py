"""What developers of pik run; not part of the package."""
