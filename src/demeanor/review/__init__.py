"""Review: texts that may be kept, the queue of what people are to look at, their labels, what was really missed, and versions in force."""
