"""Groupings of features without labels: assignments to prototypes, and clusters."""
