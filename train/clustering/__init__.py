"""Groupings of features without labels: assignments to prototypes, and clusters. No training code inside."""
