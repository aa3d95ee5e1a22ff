"""What meets torch's other machines: tracers, vmap, DTensor, Inductor. The bottom floor."""

from torch.library import Library

from dropout_ext.integration import inductor, tracing, vmap, vmap_attention


def register(library: Library) -> None:
    """Registers what others make of the operators; tracers and vmap while the library lives."""
    vmap.register(library)
    vmap_attention.register(library)
    tracing.register(library)
    inductor.register()
