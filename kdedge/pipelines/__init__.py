"""What the verbs do: export, validate and demonstrate, put together from the libraries."""
