"""Corrections: what arrived wrong is corrected by a recorded statement, never by a change of raw."""
