"""One member, trained: configuration, the loop, checkpoints, evaluation, logs."""
