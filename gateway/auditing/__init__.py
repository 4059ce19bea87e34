"""What auditors do: they search the log and take parts of it away, each in files that prove themselves."""
