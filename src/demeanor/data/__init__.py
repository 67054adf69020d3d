"""Everything that is read from files that people bring: rows and their forms, tables, labelled replies, prompts. Knows no tensor."""
