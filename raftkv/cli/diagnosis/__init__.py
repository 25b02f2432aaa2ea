"""What is wrong with a cluster: findings from evidence. Pure; ``raftkv doctor`` asks and prints."""
