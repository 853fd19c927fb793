"""How fast flow estimators are and how far they agree."""
