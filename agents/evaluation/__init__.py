"""Episodes of saved policies: suites of conditions, statistics, tables and reports."""
