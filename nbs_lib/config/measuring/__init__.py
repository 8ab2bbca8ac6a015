"""Values of parameters that say what a comparison measures, parsed.

prompts_file   a file of prompts, plain or of a public benchmark
scores         scores and their models, such as "pickscore: models/pickscore"
"""
