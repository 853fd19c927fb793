"""Stage two: store -> checkpoint."""

from train import environment

environment.repair_torchvision()
