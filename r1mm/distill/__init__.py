"""R1-V's distillation: a text stands for the picture, a reasoning model answers, right answers become training data.

Source of the chain: Deep-Agent/R1-V@bbbbe3d:src/distill_r1.
"""
