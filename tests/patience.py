"""How long tests wait for what must come: far longer than a busy machine takes, and shorter than a test's limit."""

PATIENCE = 240.0  # seconds; reached only when something is wrong
