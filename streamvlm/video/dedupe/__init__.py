"""Frame filters: drop frames that show nothing new. One file per method."""
