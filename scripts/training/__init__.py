"""Training the demo checkpoint: pool → tower → language → search → ship → measure → card."""
