"""The local store: a directory with raw objects, and two SQLite files.

format.json   the version of the layout; what it is a copy of
raw/          immutable objects
index.db      what can be rebuilt from raw
state.db      metric definitions, runs, aggregates, promotions
locks         who is writing what; empty
tmp/          objects that are not whole yet
"""
