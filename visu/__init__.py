"""Pictures of networks, clusters and runs."""
