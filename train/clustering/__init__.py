"""Clustering: no training code inside."""
