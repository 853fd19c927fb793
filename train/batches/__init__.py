"""Batches of clips in a global order: planned, read ahead, put together."""
