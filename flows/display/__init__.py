"""Sheets of images, tables and pages, which results draw themselves with."""
