"""Visual rows inside a language model → fewer of them. One file per method."""
