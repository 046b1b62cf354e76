"""Hardware-agnostic collective communication."""
