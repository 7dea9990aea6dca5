"""Runs handed to other tools: a file for each tool, which reads gathered tables and writes what that tool opens."""
