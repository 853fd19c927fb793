"""A stored video, and flow, for people and for other tools."""
