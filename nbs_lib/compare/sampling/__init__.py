"""Sampling of contenders through stock pipelines.

settings      a contender's name turned into sampling settings
sampler       the pictures of a contender, and the cost of each
pipelines     pipelines with the denoiser that settings call for
sizes         sizes of pictures that a base can draw
preview       the predicted x_0 in colours, while pictures are sampled
adapters      adapters in a pipeline's weights
engines       what evaluates a denoiser: eager, torch.compile, DeepSpeed
precision     denoisers in bf16 or fp16
profiler      denoiser evaluations, seconds and memory
sample_cache  pictures on the disk, which later comparisons use again
grid          pictures over two or three axes
long_prompts  a filter for the libraries' warnings about long prompts
"""
