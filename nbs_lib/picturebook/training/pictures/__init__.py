"""The pictures that a base is trained on.

icons        captioned icons under free licences, from npm packages
textures     shapes and textures drawn by code
mixture      the pictures of the VAE: scenes, icons and textures
stored_book  the scenes of CLIP and UNet, on disk
"""
