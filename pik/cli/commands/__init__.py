"""The commands, grouped by the chapters of `pik --help`."""
