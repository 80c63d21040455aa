"""Recipes: data, a model and a trainer put together."""
