"""What a report of an incident is made of: the results of the other chapters, each of them bounded."""
