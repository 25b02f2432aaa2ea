"""Everything that can break in a run, brought together: whoever wants the whole table imports it from here.

Runs differ in kind: one only loses messages, another only crashes, some aim everything at one node. A majority may well
be down: no safety rests on there being one. When the faults stop, everything works again, but for nodes whose data is
gone for good: those are a minority, unless the cluster was not yet formed.
"""

from __future__ import annotations

from raftkv.sim.faults import disks as disks
from raftkv.sim.faults import links as links
from raftkv.sim.faults import members as members
from raftkv.sim.faults import processes as processes
from raftkv.sim.faults.breaking import CLOCKS_PER_MILLE as CLOCKS_PER_MILLE
from raftkv.sim.faults.breaking import FILE_KINDS as FILE_KINDS
from raftkv.sim.faults.breaking import KINDS as KINDS
from raftkv.sim.faults.breaking import Faults as Faults
