"""Measuring: a synthetic world whose truth is known, questions about it, films for speed tests."""
