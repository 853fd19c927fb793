"""Stage one: videos -> store."""

import os

# Workers that end with the run log lost connections as errors. Read when distributed is imported, here and in them.
os.environ.setdefault("DASK_LOGGING__DISTRIBUTED", "critical")

MAX_PIXELS_VARIABLE = "COSTREAM_MAX_PIXELS"
_asked = os.environ.get(MAX_PIXELS_VARIABLE, str(2**26))  # two pictures of 8K
if not _asked.isdecimal() or not 0 < int(_asked[:20]) < 2**40:
    raise SystemExit(f"{MAX_PIXELS_VARIABLE} in the environment is {_asked!r}, and should be a number of pixels")
LARGEST = int(_asked)  # pixels of a picture that is decoded
# Read when OpenCV is imported, here and in workers; flow is stored as one picture of two planes.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(2 * LARGEST))
