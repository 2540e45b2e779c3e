"""The command line: one module per sub-command, which parses, calls and prints."""
