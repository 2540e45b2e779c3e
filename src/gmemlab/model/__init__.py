"""The object API over the core: validates, raises, owns the state."""
