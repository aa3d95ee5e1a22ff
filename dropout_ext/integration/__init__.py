"""What meets torch's other machines: tracers, vmap, DTensor, checkpointing. The bottom floor."""

from torch.library import Library

from dropout_ext.integration import symbolic_p, tracing, vmap, vmap_attention


def register(library: Library) -> None:
    """Registers what tracers and vmap make of the operators, for as long as the library lives."""
    vmap.register(library)
    vmap_attention.register(library)
    tracing.register(library)
    symbolic_p.register(library)
