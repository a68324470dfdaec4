"""Language models: text, the model, its training and evaluation, checkpoints, and a ledger of what it costs."""
