"""What `pik demo` plays: the data of a shop, and incidents."""
