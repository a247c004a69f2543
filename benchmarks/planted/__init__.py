"""Faults with a known answer: small networks, what is wrong in their engines and exports, and the list of both."""
