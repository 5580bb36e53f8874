"""A generated month: events of several sources, every kind of fault, and the truth about both in plain Python."""
