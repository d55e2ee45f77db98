"""Faults on purpose, against a real daemon: each test is a row of the README's fault table."""
