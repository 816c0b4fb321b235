"""What a run would cost, read from its compiled program: memory, time, FLOPs, on slices of TPUs too."""
