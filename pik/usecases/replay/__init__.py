"""Repairing numbers: plan and execute runs, promote or roll back what they wrote."""
