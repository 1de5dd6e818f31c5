"""What the clients are made of: queue, delivery, spool. Import ``collector.client``."""
