"""Operators for networks that are differentiated twice; they depend on torch only."""
