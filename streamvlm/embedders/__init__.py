"""Clip or text → search keys. One file per encoder family."""
