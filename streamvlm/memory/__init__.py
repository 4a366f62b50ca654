"""VisualTokens → MemoryRecord → Evidence: a durable store on disk with a FAISS index."""
