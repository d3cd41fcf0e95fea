"""Diffusion of small images: data, networks, objective, judge, evaluation and the steps made of them."""
