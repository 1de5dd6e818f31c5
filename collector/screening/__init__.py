"""What becomes of an event between the stream and the trainer."""
