"""Objectives: functions from a wrapped model to its phases."""
