"""Clip → VisualTokens, and Evidence → words. One file per video-LLM family."""
