"""Stage 3: checkpoint and store in, numbers and a report out."""

import train  # noqa: F401  repairs torchvision's operators before torchmetrics, lightning or torchvision are imported
