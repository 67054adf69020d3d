"""What benchmarks/reader.py and others are held against, each a script of its own or a function."""
