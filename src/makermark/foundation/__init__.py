"""The modules that every other room may import: errors, files, settings, tracking and data formats."""
