"""How well a model does on labelled cases, and how lesions of one patient change over time."""
