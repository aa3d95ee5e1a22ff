"""What meets torch's other machines: tracers, vmap, DTensor, Inductor. The bottom floor."""

from torch.library import Library

from dropout_ext.integration import checkpoint, inductor, symbolic_p, tracing, vmap, vmap_attention


def register(library: Library) -> None:
    """Registers what tracers and vmap make of the operators, for as long as the library lives.

    What checkpointing repeats and Inductor fuses is registered for the process.
    """
    checkpoint.register()
    vmap.register(library)
    vmap_attention.register(library)
    tracing.register(library)
    symbolic_p.register(library)
    inductor.register()
