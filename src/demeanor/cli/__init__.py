"""The command line: one module a command. It parses, calls the library, and prints."""
