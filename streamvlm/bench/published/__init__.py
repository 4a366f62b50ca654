"""Published methods the way their authors compute them, for comparison."""
