"""Deliberate mistakes in the sources, each of which a named test has to notice."""

from tests.mutations import binding, kernels, python
from tests.mutations.mutation import Mutation

MUTATIONS: tuple[Mutation, ...] = (*kernels.MUTATIONS, *binding.MUTATIONS, *python.MUTATIONS)
