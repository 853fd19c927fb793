"""Extraction on Dask: what is missing in a store, one task a video."""
