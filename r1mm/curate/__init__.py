"""open-r1-multimodal's data: questions about pictures, rewritten with thoughts by a model that sees, and verified.

Source of the chain: EvolvingLMMs-Lab/open-r1-multimodal@232b7ba:local_scripts/create_vision_cot_data.py and
prepare_hf_data.py, read in a copy of both, maifoundations/Visionary-R1@e5dd04d:local_scripts.
"""
