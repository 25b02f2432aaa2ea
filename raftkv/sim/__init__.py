"""The virtual world; what an embedder needs of it is the protocol that a simulated machine keeps."""

from raftkv.sim.machine import SimulatedMachine

__all__ = ["SimulatedMachine"]
