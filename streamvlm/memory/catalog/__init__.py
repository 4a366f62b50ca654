"""Which records exist: all SQL."""
