"""What a run would take and cost, reckoned with the real prompts before it begins."""
