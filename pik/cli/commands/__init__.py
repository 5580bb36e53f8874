"""The commands; `pik.cli.app` groups them by the chapters of `pik --help`."""
