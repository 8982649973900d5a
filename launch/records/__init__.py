"""What came out: record.json, report.md, docs/results.md."""
