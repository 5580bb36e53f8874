"""Sending history on to consumers again."""
