"""Where answers are kept: in the process, in Redis or on disk, and what keeps the replicas together."""
