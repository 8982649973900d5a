"""How it runs: experiment files, stages, Lightning, records and reports."""
