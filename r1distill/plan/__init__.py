"""What a recipe takes in memory, hours and money, from the configs of its models alone."""
