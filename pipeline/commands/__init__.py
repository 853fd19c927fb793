"""The commands of stage one, one module a topic; `python -m pipeline COMMAND --help` tells each one's options."""
