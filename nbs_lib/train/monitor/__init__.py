"""What can be watched of a training: metrics, phases, hardware use and their plots."""
