"""What a store, an engine and an exporter must offer. The docstrings are the contract; tests/contracts/ holds every
implementation to it."""
