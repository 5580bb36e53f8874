"""Keeping and checking a store: verify, rebuild the index, back up the state, look after a stack."""
