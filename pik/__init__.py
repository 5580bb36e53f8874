"""pik, the Pipeline Investigation Kit: find out what arrived, what the numbers should be, and repair them."""

__version__ = "0.1.0"
