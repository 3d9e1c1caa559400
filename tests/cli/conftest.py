"""Fixtures of the command line's tests."""

from helpers.workplaces import workplace

__all__ = ["workplace"]
