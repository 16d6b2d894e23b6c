"""Where counts and answers are kept between requests: one back end in each file."""
