"""What each endpoint takes, as the providers publish it; one file for each family."""
