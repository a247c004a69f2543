"""Task metrics: plain functions of tensors, bound to a limit by the suite that uses them."""
