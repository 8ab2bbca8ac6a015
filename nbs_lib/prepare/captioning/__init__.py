"""Captions for images that have none: drafted by a model, edited by a person.

captioner   the model of the parameter `captioner`
drafts      its captions, each picture's once
editor      a folder's captions beside their pictures, edited in the notebook
"""

from .editor import caption_editor

__all__ = ["caption_editor"]
