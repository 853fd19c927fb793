"""Stage one: videos -> store."""
