"""The command line: one file a command (parse, one use case, show), and what they share."""
