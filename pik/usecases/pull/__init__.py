"""Pull: copy a window of a store into another one, with all that numbers of it are made of."""
