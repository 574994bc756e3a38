//! The configuration: a JSON file, environment variables, flags.
