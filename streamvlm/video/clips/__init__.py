"""Group frames into clips. One file per method."""
