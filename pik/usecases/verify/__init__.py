"""Checking raw, index and state against each other and against their digests."""
