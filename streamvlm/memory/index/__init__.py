"""Which keys are indexed, and how the nearest are found."""
