"""Losses of the five systems: functions of tensors, without networks or training code."""
