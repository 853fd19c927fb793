"""Where extraction runs: worker processes on this machine, on GPUs, with a running scheduler, in jobs; and how runs
end."""
