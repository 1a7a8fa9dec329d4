"""Operators for networks that are differentiated twice; torch alone."""
