"""What a run would take and cost, estimated with its real prompts before it begins."""
