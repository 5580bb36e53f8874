"""Events, identity, windows, metrics and results: pure values and functions, no input or output."""
