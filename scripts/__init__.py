"""Programs around StreamVLM; run those in Python with `python -m scripts.NAME`."""
