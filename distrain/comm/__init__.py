"""The wire: turns Schedules into bytes over MPI, and offers them as a torch.distributed backend."""
