"""Stage one: videos -> store."""

import os

# Workers that end with the run log lost connections as errors. Read when distributed is imported, here and in them.
os.environ.setdefault("DASK_LOGGING__DISTRIBUTED", "critical")
