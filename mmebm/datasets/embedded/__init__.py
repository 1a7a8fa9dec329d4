"""The embedded data set, drawn from a seed: its pictures, and its files in the layouts of others."""
