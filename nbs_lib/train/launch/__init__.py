"""The processes of a training: checks before the launch, the launch itself, several hosts, and a graceful stop."""
