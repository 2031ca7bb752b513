"""The processor of a checkpoint as every run uses it: images by Pillow, prompts padded on the left."""

from pathlib import Path
from typing import Any

from transformers import AutoImageProcessor, AutoProcessor


def load_processor(folder: Path) -> Any:
    """The processor of a checkpoint folder, padding on the left so that every answer begins where its prompt ends.

    Images are resized by Pillow, as upstream's were: of those recorded from upstream's code (`r1mm fidelity`) every
    pixel is the same to the bit.  transformers 5 resizes by torchvision unless told otherwise, and of a 480 x 320
    picture some per cent of the values then differ, by up to 2 of 255.
    """
    processor = AutoProcessor.from_pretrained(folder, padding_side="left", trust_remote_code=False)
    processor.image_processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    return processor
