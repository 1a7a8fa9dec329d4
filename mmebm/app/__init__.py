"""A local page on which one looks at what a model restores."""
