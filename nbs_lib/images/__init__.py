"""Pictures and HTML pages.

convert  tensors, bytes
psnr     how near a picture comes to another one
grid     pages of labelled pictures
style    the palette and the fonts of all figures
html     Jinja templates, and the policy for inline style and script
"""
