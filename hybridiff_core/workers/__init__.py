"""Workers' life and wire.

Which devices there are: devices, with nvml, gpus, usage and candidates. In the process that samples: pool,
launch_local, reap, and exchange with its requests, steps, watch and chain. In a worker: worker,
endpoint, loop. In both: sockets and channel for tensors, frames and wire for data, messages and
ledger for what the two ends agree on.
"""
