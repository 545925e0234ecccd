"""Into Hugging Face Transformers and out of it: folders with safetensors, a configuration and a tokenizer; our classes.

`hrm_text` is a model that Transformers has; the other causal models come as a class of ours. Nothing is unpickled, and
no code of a folder is run.
"""
