"""Proof that models train: small networks with each form of dropout, compared over seeds."""
