"""The network between the hosts of a job, measured through the job's own communicator."""

from pycomm.probe.measure import measure_network, probe

__all__ = ["measure_network", "probe"]
