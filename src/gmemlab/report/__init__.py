"""How results are shown: tables for the terminal, and plain data for other programs."""
