"""The page of a report: what is drawn, what stands in its tables, and the HTML around both."""
