"""The teacher's distributions of the kept traces, scored in a stage of their own."""
