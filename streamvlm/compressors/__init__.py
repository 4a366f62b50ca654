"""VisualTokens → fewer VisualTokens. One file per method."""
