"""Recipes: YAML in, checked and resolved options out, every mistake with its place. No heavy imports here."""
