"""The operations on files. Each returns (errno, pages done); a failed one leaves a consistent state and loses nothing."""
