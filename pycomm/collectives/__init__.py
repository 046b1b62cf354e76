"""What each collective means."""
