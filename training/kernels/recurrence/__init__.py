"""The generator's recurrence over all time steps, with first and second derivatives."""
