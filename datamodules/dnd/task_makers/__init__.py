"""Where the examples of a task come from: one module a source, each turning it into `Item`s."""
