"""Evidence bundles: a window of a store in one file, which can be checked and read anywhere."""
