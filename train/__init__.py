"""Stage two: store -> checkpoint."""

from pipeline import environment

environment.repair_torchvision()
