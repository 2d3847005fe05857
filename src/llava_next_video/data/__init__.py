"""Training samples: from anybody's file to a batch."""
