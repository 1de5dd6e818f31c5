"""What a person looks after: dead letters and the quarantine."""
